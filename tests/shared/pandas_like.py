"""Frames and series that look as those of pandas, which is not installed."""


class Series(list):
    """values: as `tolist` of a pandas.Series returns them."""

    __module__ = "pandas"  # of version 3; before, pandas.core.series

    def __init__(self, name, values):
        super().__init__(values)
        self.name, self.index = name, range(len(values))

    def tolist(self):
        return list(self)


class DataFrame:
    """columns: values by name."""

    __module__ = "pandas.core.frame"

    def __init__(self, columns):
        self.values, self.columns = columns, list(columns)

    def __getitem__(self, name):
        return Series(name, self.values[name])
