"""What comes out for people: tables of every sweep of a store. All of it can be made again from the store.

tables.py          which tables are asked for
frames.py          the store's rows as DataFrames
sweep_tables.py    a sweep's cells, ablations and comparisons
pivots.py          any rows and columns, over sweeps and stores
paper_tables.py    a paper's tables; paper_figures.py, its figures
printable.py       what a table is, and its files; latex.py
filenames.py       files that are named by labels
series.py          what charts draw; charts.py, with looks.py (colours, markers, lines) and fonts.py
figures.py         one trial's accuracy matrix
claims.py          a paper's claims; page.py, one HTML page of all this
"""
