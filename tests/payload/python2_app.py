"""What an app had in Python 2 and has in Python 3: imported by the fixtures' maker and by tests."""


class Old:
    """Of the old style in Python 2."""

    def __init__(self, name):
        self.name = name

    def greet(self, word, mark="!"):
        return (self.name, word, mark)


class OldWithArgs:
    def __init__(self, first, second):
        self.pair = (first, second)

    def __getinitargs__(self):
        return self.pair


class OldWithState:
    def __init__(self):
        self.value = 1

    def __getstate__(self):
        return {"value": self.value, "note": "state"}

    def __setstate__(self, state):
        self.__dict__.update(state)


class New(object):  # noqa: UP004 - Python 2 needs the base
    def __init__(self, **values):
        self.__dict__.update(values)

    def greet(self, word, mark="!"):
        return (self.name, word, mark)

    @classmethod
    def make(cls, word):
        return (cls.__name__, word)

    def __call__(self, word):
        return (self.name, word, "called")


class Slots(object):  # noqa: UP004
    __slots__ = ("left", "right")

    def __init__(self, left, right):
        self.left = left
        self.right = right


class Text(str):
    pass


class Number(int):
    pass


class Names(dict):
    pass


class Row(list):
    pass


class Failure(Exception):
    pass


def echo(*args, **kwargs):
    """Return what it is given."""
    return (args, kwargs)
