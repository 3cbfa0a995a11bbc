"""Reports: tables, figures and pages of sweeps. All can be regenerated from the store.

tables.py          which tables are requested
frames.py          the store's rows as DataFrames
sweep_tables.py    a sweep's cells, ablations and comparisons
pivots.py          pivot tables of any rows and columns, over sweeps and stores
paper_tables.py    a paper's tables; paper_figures.py, its figures
printable.py       the interface of a table, and its files; latex.py
filenames.py       file names made from labels
series.py          the data of charts; charts.py, with looks.py (colours, markers, lines) and fonts.py
figures.py         one trial's accuracy matrix
claims.py          a paper's claims; page.py, one HTML page with everything
"""
