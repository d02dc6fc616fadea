"""Configurations and their settings by name: what records refuse, how a setting is named, read, written and changed."""

import json
from typing import Annotated, ClassVar, Literal

import msgspec
import numpy as np
import pytest
from msgspec import Meta, inspect

from jaxmeta.algorithms import registry
from jaxmeta.algorithms.registry import configure
from jaxmeta.core.config import (
    TRACED,
    AdaptationConfig,
    AlgorithmConfig,
    Config,
    Count,
    Fraction,
    Natural,
    NonNegative,
    Positive,
    is_optional,
    kinds,
    records_of,
    spelled,
    tag_of,
    traced_fields,
)
from jaxmeta.core.errors import LARGEST_FLOAT, LARGEST_INT, UsageError
from jaxmeta.core.settings import (
    Text,
    flattened,
    match,
    nested,
    path_of,
    paths_of,
    replaced,
    settings_of,
    shortest,
    traced_settings,
    with_values,
)
from jaxmeta.core.tasks import spell_value


class Engine(Config, frozen=True, kw_only=True, tag_field="type"):
    """What all engines have."""

    power: Annotated[NonNegative, TRACED] = 1.0
    size: Count = 4


class Diesel(Engine, frozen=True, kw_only=True, tag="diesel"):
    """One of two."""

    turbo: bool = False


class Electric(Engine, frozen=True, kw_only=True, tag="electric"):
    """The other."""

    cells: tuple[Count, ...] = (2, 3)


class Gear(Config, frozen=True, kw_only=True):
    """A record that checks how its fields go together."""

    low: Natural = 1
    high: Natural = 5
    slip: Annotated[float, Meta(ge=0, lt=1, extra={"traced": True})] = 0.0

    def __post_init__(self):
        super().__post_init__()
        if self.low > self.high:
            raise UsageError("low", f"be at most high = {self.high}", self.low)


class Trailer(Config, frozen=True, kw_only=True):
    """What need not be there."""

    axles: Count = 1
    size: Positive = 2.0


class VehicleConfig(AlgorithmConfig, frozen=True, kw_only=True):
    """Records of each kind, and a plain field of each."""

    engine: Diesel | Electric = Diesel()
    gear: Gear = Gear()
    trailer: Trailer | None = None
    body: Literal["car", "van"] = "car"
    load: Fraction = 0.5
    doors: tuple[Count, ...] = (2, 2)

    unread: ClassVar[frozenset[str]] = frozenset({"gear.slip"})


PLAIN = VehicleConfig()
TOWING = VehicleConfig(trailer=Trailer())


def refusal(function, *arguments, **named):
    """Of what is refused: name, rule and value."""
    with pytest.raises(UsageError) as refused:
        function(*arguments, **named)
    return refused.value.name, refused.value.rule, refused.value.value


# --- records


def test_values_become_those_of_their_fields():
    gear = Gear(low=np.int32(2), slip=np.float32(0.5))
    assert (type(gear.low), type(gear.slip), gear) == (int, float, Gear(low=2, slip=0.5))
    car = VehicleConfig(load=1, doors=[4, np.int64(1)])
    assert (type(car.load), car.load, car.doors) == (float, 1.0, (4, 1))


@pytest.mark.parametrize(
    ("record", "values", "refused"),
    [
        (Engine, {"size": 0}, ("size", "be at least 1", 0)),
        (Engine, {"size": 2.0}, ("size", "be an integer", 2.0)),
        (Engine, {"size": True}, ("size", "be an integer", True)),
        (Engine, {"size": 2**31}, ("size", f"be at most {LARGEST_INT} in size", 2**31)),
        (Engine, {"power": -1}, ("power", "be at least 0", -1.0)),
        (Engine, {"power": "1"}, ("power", "be a number", "1")),
        (Engine, {"power": 1e39}, ("power", f"be at most {LARGEST_FLOAT:.1e} in size", 1e39)),
        (Engine, {"power": float("inf")}, ("power", "be finite", float("inf"))),
        (Diesel, {"turbo": 1}, ("turbo", "be True or False", 1)),
        (Electric, {"cells": (2, 0)}, ("cells", "hold integers of at least 1", (2, 0))),
        (Electric, {"cells": 2}, ("cells", "be a tuple of integers", 2)),
        (Electric, {"cells": (2.5,)}, ("cells", "be an integer", 2.5)),
        (Gear, {"slip": 1.0}, ("slip", "be below 1", 1.0)),
        (Gear, {"low": 7}, ("low", "be at most high = 5", 7)),
        (Trailer, {"size": 0}, ("size", "be above 0", 0.0)),
        (VehicleConfig, {"load": 1.5}, ("load", "be at most 1", 1.5)),
        (VehicleConfig, {"body": "bus"}, ("body", "be one of car, van", "bus")),
        (VehicleConfig, {"body": None}, ("body", "be a string", None)),
        (VehicleConfig, {"engine": Engine()}, ("engine", "be of type Diesel or Electric", Engine())),
        (VehicleConfig, {"engine": None}, ("engine", "be of type Diesel or Electric", None)),
        (VehicleConfig, {"trailer": Gear()}, ("trailer", "be of type Trailer", Gear())),
    ],
)
def test_values_that_a_field_does_not_take_are_refused(record, values, refused):
    assert refusal(record, **values) == refused


def test_records_are_frozen_and_know_their_fields():
    with pytest.raises(AttributeError):
        Gear().low = 3
    with pytest.raises(TypeError):
        Gear(lower=3)
    assert Gear(low=2) == Gear(low=2) != Gear()


def test_fields_say_what_they_take():
    fields = {**kinds(Gear), **kinds(Electric), **kinds(Diesel), **kinds(VehicleConfig)}
    assert {name: spelled(fields[name]) for name in ("low", "slip", "cells", "turbo", "body", "load")} == {
        "low": "integer >= 0",
        "slip": "number >= 0 < 1",
        "cells": "integers >= 1",
        "turbo": "true, false",
        "body": "car, van",
        "load": "number >= 0 <= 1",
    }
    assert [spelled(fields[name]) for name in ("engine", "trailer")] == ["diesel, electric", "default, none"]
    assert records_of(fields["engine"]) == {"diesel": Diesel, "electric": Electric}
    assert records_of(fields["trailer"]) == {"default": Trailer}
    assert records_of(fields["load"]) == {}
    assert [name for name, kind in kinds(VehicleConfig).items() if is_optional(kind)] == ["trailer"]
    assert (tag_of(Diesel()), tag_of(Gear())) == ("diesel", None)
    assert traced_fields(Gear) == {"slip"}
    assert traced_fields(Diesel) == {"power"}, "its own and what it has of others"


def test_the_length_of_a_rollout_is_the_horizon_where_none_is_set():
    unset, fixed = AdaptationConfig(), AdaptationConfig(rollout_length=3)
    assert (unset.within(7).rollout_length, fixed.within(7).rollout_length) == (7, 3)
    assert AdaptationConfig(num_envs=2, num_adaptations=5).within(7).env_steps == 70


@pytest.mark.parametrize("name", registry.ALGORITHMS)
def test_an_algorithm_is_named_by_its_configuration(name):
    assert registry.find(name).config().algorithm == name


# --- named


def test_every_setting_has_a_path():
    adaptation = ["adaptation.num_envs", "adaptation.rollout_length", "adaptation.num_adaptations"]
    own = ["meta_steps", "body", "load", "doors"]
    engine, trailer = ["engine", "engine.power", "engine.size"], ["trailer", "trailer.axles", "trailer.size"]
    gear = ["gear.low", "gear.high"]
    assert {*paths_of(PLAIN)} == {*adaptation, *own, *engine, "engine.turbo", *gear, "gear.slip", *trailer}
    assert {*paths_of(replaced(PLAIN, {"engine": "electric"}))} - {*paths_of(PLAIN)} == {"engine.cells"}
    read = {*adaptation, *own, *engine, "engine.turbo", *gear}
    assert settings_of(PLAIN).keys() == {*read, "trailer"}
    assert settings_of(TOWING).keys() == {*read, "trailer.axles", "trailer.size"}
    assert {settings_of(PLAIN)[path] for path in ("engine", "trailer", "body")} == {"diesel", None, "car"}


def test_a_setting_is_named_by_its_path_or_its_last_words():
    assert path_of(PLAIN, "gear.low") == path_of(PLAIN, "low") == "gear.low"
    assert path_of(PLAIN, "body") == "body"
    assert match("size", [*paths_of(PLAIN)]) == ["engine.size", "trailer.size"]
    assert match("ize", [*paths_of(PLAIN)]) == [], "of a word there is no half"
    assert match("a", ["a", "b.a"]) == ["a"], "a whole path is no part of another"
    names = {path: shortest(path, [*paths_of(PLAIN)]) for path in paths_of(PLAIN)}
    assert (names["gear.low"], names["engine.size"], names["engine"]) == ("low", "engine.size", "engine")
    assert all(path_of(PLAIN, name) == path for path, name in names.items() if path not in PLAIN.unread)


@pytest.mark.parametrize(
    ("name", "rule", "hint"),
    [
        ("size", "be written as engine.size or trailer.size", ""),
        ("wings", "be one that VehicleConfig reads", ""),
        ("engine.cells", "be one that VehicleConfig reads", ""),
        ("gear.slip", "be one that VehicleConfig reads", ""),
        ("lo", "be one that VehicleConfig reads", "Did you mean 'low' or 'load'?"),
        ("axels", "be one that VehicleConfig reads", "Did you mean 'axles'?"),
        ("rounds", "be one that VehicleConfig reads", "Did you mean 'num_adaptations'?"),
    ],
)
def test_a_name_of_no_setting_or_of_several_is_refused(name, rule, hint):
    for refuse in (path_of, lambda config, name: replaced(config, {name: 1})):
        with pytest.raises(UsageError) as refused:
            refuse(PLAIN, name)
        error = refused.value
        assert (error.name, error.rule, error.value, error.hint) == ("setting", rule, name, hint)


def test_a_refusal_says_whose_settings_they_are():
    assert refusal(replaced, PLAIN, {"wings": 2}, "mine:vehicle")[1] == "be one that mine:vehicle reads"
    assert refusal(configure, "maml", "probe", {"slots": 2})[1] == "be one that maml reads with agent 'dqn'"


def test_traced_settings_are_those_that_are_read():
    assert traced_settings(PLAIN) == {"power": "engine.power"}
    assert traced_settings(Gear()) == {"slip": "slip"}


# --- changed


def test_settings_change_what_they_name_and_nothing_else():
    changed = replaced(PLAIN, {"low": 0, "engine.power": 2, "body": "van", "num_envs": 3})
    assert changed == VehicleConfig(
        adaptation=AdaptationConfig(num_envs=3), engine=Diesel(power=2.0), gear=Gear(low=0), body="van"
    )
    assert VehicleConfig() == PLAIN
    assert replaced(PLAIN, {}) == PLAIN
    assert with_values(PLAIN, {"gear.low": 0, "load": 1}) == VehicleConfig(gear=Gear(low=0), load=1.0)


def test_settings_of_a_record_are_checked_together():
    """Each by itself would be refused."""
    assert replaced(PLAIN, {"low": 8, "high": 9}).gear == Gear(low=8, high=9)
    assert with_values(PLAIN, {"gear.low": 8, "gear.high": 9}).gear == Gear(low=8, high=9)
    assert refusal(replaced, PLAIN, {"low": 8}) == ("low", "be at most high = 5", 8)


def test_values_are_refused_under_the_name_that_they_were_given_by():
    for name in ("power", "engine.power"):
        assert refusal(replaced, PLAIN, {name: -1.0}) == (name, "be at least 0", -1.0)
    assert refusal(with_values, PLAIN, {"engine.power": -1.0}) == ("engine.power", "be at least 0", -1.0)
    assert refusal(replaced, PLAIN, {"engine": "steam"}) == ("engine", "be one of diesel, electric", "steam")


def test_a_record_that_is_chosen_by_name_keeps_what_it_shares():
    strong = VehicleConfig(engine=Diesel(power=7.0, size=9, turbo=True))
    assert replaced(strong, {"engine": "electric"}).engine == Electric(power=7.0, size=9)
    assert replaced(strong, {"engine": "diesel"}).engine == strong.engine
    assert replaced(strong, {"engine": Electric()}).engine == Electric(), "but not where a whole one is given"


def test_what_a_record_is_decides_which_settings_there_are_whatever_comes_first():
    expected = Electric(power=3.0, cells=(5,))
    assert replaced(PLAIN, {"cells": [5], "power": 3, "engine": "electric"}).engine == expected
    assert replaced(PLAIN, {"engine": "electric", "engine.power": 3, "cells": [5]}).engine == expected
    assert refusal(replaced, PLAIN, {"turbo": True, "engine": "electric"})[2] == "turbo"


def test_an_optional_record_is_made_by_a_setting_within_or_by_name():
    assert replaced(PLAIN, {"axles": 2}).trailer == Trailer(axles=2)
    assert replaced(PLAIN, {"trailer.axles": 2, "trailer.size": 1}).trailer == Trailer(axles=2, size=1.0)
    assert with_values(PLAIN, {"trailer.axles": 2}).trailer == Trailer(axles=2)
    assert replaced(PLAIN, {"trailer": "default"}).trailer == Trailer()
    assert replaced(PLAIN, {"trailer": "default", "axles": 2}).trailer == Trailer(axles=2)
    assert replaced(TOWING, {"axles": 2}).trailer == Trailer(axles=2)


@pytest.mark.parametrize("none", [None, "none", "None", "null", Text("none")])
def test_an_optional_record_is_taken_away(none):
    assert replaced(TOWING, {"trailer": none}).trailer is None
    assert refusal(replaced, PLAIN, {"engine": none})[0] == "engine"
    for settings in ({"trailer": none, "axles": 2}, {"axles": 2, "trailer": none}):
        assert refusal(replaced, TOWING, settings) == ("axles", "be left out where trailer is none", 2)


# --- read from text


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("low", "2", 2),
        ("engine.size", " 7 ", 7),
        ("power", "1e-3", 1e-3),
        ("power", "2", 2.0),
        ("turbo", "true", True),
        ("turbo", "False", False),
        ("doors", "4", (4,)),
        ("doors", "4,2", (4, 2)),
        ("doors", "", ()),
        ("body", "van", "van"),
    ],
)
def test_text_is_read_as_the_type_of_its_field(name, text, value):
    found = settings_of(replaced(PLAIN, {name: Text(text)}))[path_of(PLAIN, name)]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("name", "text", "rule"),
    [
        ("low", "two", "be an integer"),
        ("low", "2.0", "be an integer"),
        ("power", "much", "be a number"),
        ("turbo", "yes", "be true or false"),
        ("turbo", "1", "be true or false"),
        ("doors", "4;2", "be integers between commas"),
        ("body", "bus", "be one of car, van"),
        ("engine", "steam", "be one of diesel, electric"),
        ("trailer", "big", "be one of default"),
    ],
)
def test_text_that_is_none_of_its_type_is_refused(name, text, rule):
    found = refusal(replaced, PLAIN, {name: Text(text)})
    assert found == (name, rule, text)
    assert type(found[2]) in (str, Text)


@pytest.mark.parametrize(
    ("name", "text", "rule"),
    [("low", "-1", "be at least 0"), ("power", "nan", "be finite"), ("doors", "0", "hold integers of at least 1")],
)
def test_text_is_held_to_the_bounds_of_its_field(name, text, rule):
    assert refusal(replaced, PLAIN, {name: Text(text)})[:2] == (name, rule)


def test_other_strings_are_no_text():
    """A file and a program hold numbers where they mean them."""
    assert refusal(replaced, PLAIN, {"low": "2"}) == ("low", "be an integer", "2")
    assert refusal(replaced, PLAIN, {"turbo": "true"}) == ("turbo", "be True or False", "true")


# --- written and read again


def test_a_file_holds_plain_values_by_record():
    content = nested(replaced(TOWING, {"engine": "electric"}))
    assert content["engine"] == {"type": "electric", "power": 1.0, "size": 4, "cells": [2, 3]}
    assert content["gear"] == {"low": 1, "high": 5}, "without what is not read"
    assert content["trailer"] == {"axles": 1, "size": 2.0}
    assert nested(PLAIN)["trailer"] is None
    assert json.loads(json.dumps(content)) == content


def test_flattened_settings_are_named_by_their_paths():
    flat = flattened(nested(TOWING))
    assert flat | {"doors": (2, 2)} == settings_of(TOWING)
    assert flattened(flat) == flat
    assert flattened({"engine": {"type": "diesel"}, "gear": {}, "load": 1}) == {"engine": "diesel", "load": 1}


@pytest.mark.parametrize("config", [PLAIN, TOWING, VehicleConfig(engine=Electric(cells=()), gear=Gear(low=0))])
def test_what_was_written_is_read_again(config):
    for content in (settings_of(config), flattened(nested(config))):
        assert replaced(PLAIN, content) == config
        assert replaced(VehicleConfig(engine=Electric(power=3.0), load=0.1), content) == config


def another(value, kind):
    """Another value of a field."""
    match kind:
        case inspect.BoolType():
            return not value
        case inspect.IntType():
            return 2 * value + 4  # still even, and still a multiple of the number of heads
        case inspect.FloatType():
            return 0.75 if value == 0.25 else 0.25
        case inspect.VarTupleType():
            return (5, 7)
        case inspect.LiteralType(values=known):
            return next(other for other in known if other != value)
    return value


def changed(config):
    """A configuration in which every setting that is read has another value."""
    values = {}
    for name, kind in kinds(type(config)).items():
        value = getattr(config, name)
        if value is None:
            (value,) = (record() for record in records_of(kind).values())
        values[name] = changed(value) if isinstance(value, Config) else another(value, kind)
    whole = type(config)(**values)
    return with_values(whole, {path: at(config, path) for path in getattr(config, "unread", ())})


def at(config, path):
    """What stands at a path."""
    for name in path.split("."):
        config = getattr(config, name)
    return config


ALL = [
    (name, agent)
    for name in registry.ALGORITHMS
    for agent in records_of(kinds(registry.find(name).config).get("agent", inspect.AnyType())) or [None]
]


@pytest.mark.parametrize(("name", "agent"), ALL)
def test_configurations_of_every_algorithm_are_read_as_they_were_written(name, agent):
    chosen = {} if agent is None else {"agent": agent}
    usual = configure(name, "probe", chosen)
    other = changed(usual)
    same = [path for path, value in settings_of(other).items() if settings_of(usual).get(path, ...) == value]
    assert same == [*chosen], "all else has another value"
    for config in (usual, other):
        content = nested(config)
        assert msgspec.convert(json.loads(json.dumps(content)), type(config)) == config
        texts = {path: Text(spell_value(value)) for path, value in settings_of(config).items()}
        for settings in (content, flattened(content), settings_of(config), texts, config):
            assert configure(name, "probe", settings) == config
