"""Methods: one file each, with a frozen spec, a blueprint and the maths. `METHODS` is the registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from crwn.methods import (
    agem,
    batche,
    derpp,
    dynamos,
    er,
    ewc,
    finetune,
    flynet,
    joint,
    lwf,
    metaplastic,
    mtl,
    neuromodnet,
    psp,
    si,
    stl,
    supsup,
)
from crwn.methods.protocol import Method, Surroundings
from crwn.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodEntry:
    """A method.

    Attributes:
        spec: its spec class.
        build: builds its learner.
        reads_features: whether it reads the input of a plain network's last layer, or trains that layer separately: a
            user's own network must then end in an `nn.Linear`.
    """

    spec: type[Any]
    build: Callable[[Any, Surroundings], Method]
    reads_features: bool = False


METHODS: Registry[MethodEntry] = Registry(
    "method",
    {
        "neuromodnet": MethodEntry(spec=neuromodnet.NeuroModNetSpec, build=neuromodnet.NeuroModNet),
        "flynet": MethodEntry(spec=flynet.FlyNetSpec, build=flynet.FlyNet),
        "supsup": MethodEntry(spec=supsup.SupSupSpec, build=supsup.SupSup),
        "batche": MethodEntry(spec=batche.BatchESpec, build=batche.BatchE),
        "psp": MethodEntry(spec=psp.PSPSpec, build=psp.PSP),
        "mtl": MethodEntry(spec=mtl.MTLSpec, build=mtl.MTL),
        "stl": MethodEntry(spec=stl.STLSpec, build=stl.STL),
        "finetune": MethodEntry(spec=finetune.FinetuneSpec, build=finetune.Finetune),
        "joint": MethodEntry(spec=joint.JointSpec, build=joint.Joint),
        "ewc": MethodEntry(spec=ewc.EWCSpec, build=ewc.EWC),
        "si": MethodEntry(spec=si.SISpec, build=si.SI),
        "lwf": MethodEntry(spec=lwf.LwFSpec, build=lwf.LwF, reads_features=True),
        "metaplastic": MethodEntry(spec=metaplastic.MetaplasticSpec, build=metaplastic.Metaplastic),
        "agem": MethodEntry(spec=agem.AGEMSpec, build=agem.AGEM),
        "er": MethodEntry(spec=er.ERSpec, build=er.ER),
        "derpp": MethodEntry(spec=derpp.DERPPSpec, build=derpp.DERPP),
        "dynamos": MethodEntry(spec=dynamos.DynamosSpec, build=dynamos.Dynamos),
    },
)
