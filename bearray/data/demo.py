"""The demo catalogue: an invented world of films, so that the pipeline runs without a download.

The process, in order:

1. **Catalogue.** Eight genres, each with its own words. A genre holds franchises ("Ember Harbor"); a
   franchise holds 1 to 3 series ("Ember Harbor Chronicles", "Ember Harbor Nights"); a series holds volumes,
   geometrically many ("Ember Harbor Nights: The Pale Captain"). Titles have 4 to 8 words and are distinct;
   a franchise's titles share their first words, as real titles do.
2. **Popularity.** Franchises are put in random order over all genres; weight = rank^-1 (a power law).
3. **Users.** A user draws a taste over genres from Dirichlet(0.3), a length of 5 plus a geometric number
   (mean 6, at most 40 in all) and a first day in three years. The user then walks: with probability 0.50 to
   the next unseen volume of the series, 0.15 to another series of the franchise, 0.25 to another franchise of
   the genre (by popularity), 0.10 to a franchise of a genre drawn from the taste. A new series is entered at
   its first volume with probability 0.6, else anywhere. Nothing is seen twice. Days between films are
   exponential (mean 12, whole days).
4. **Protocol.** The same 5-core (5% more films are made than asked for, since it drops the rarest), windows
   and 8:1:1 cut by time as any other data set.

The constants were chosen once, by plausibility, and not by what any method makes of them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from pathlib import Path

import numpy as np

from bearray.data.checks import DAY_SECONDS
from bearray.data.protocol import k_core, make_windows, split_windows
from bearray.data.write import items_table, write_dataset
from bearray.errors import ConfigError

MEAN_SERIES, MEAN_VOLUMES, MAX_WORDS = 1.6, 4.0, 8
STAY_IN_SERIES, STAY_IN_FRANCHISE, STAY_IN_GENRE = 0.50, 0.15, 0.25
START_AT_FIRST = 0.6
TASTE = 0.3
POPULARITY_EXPONENT = 1.0
MIN_LENGTH, MEAN_EXTRA, MAX_LENGTH = 5, 6, 40
FIRST_DAY, DAYS, MEAN_GAP = 17_897, 3 * 365, 12  # 1 January 2019, in days since 1970
K_CORE, SPARE = 5, 1.05

GENRES: dict[str, tuple[str, str, str]] = {
    # genre: (adjectives, nouns, places)
    "sea": (
        "Ember Salt Silver Drowned Northern Pale Tidal Sunken Coral Restless Bitter Windward",
        "Captain Lantern Mermaid Anchor Storm Voyage Whale Compass Mutiny Pearl Widow Sailor",
        "Harbor Lagoon Strait Reef Lighthouse Shore",
    ),
    "space": (
        "Stellar Orbital Broken Quantum Distant Crimson Hollow Solar Frozen Lunar Zero Outer",
        "Colony Signal Pilot Comet Horizon Engine Exile Beacon Cadet Paradox Nebula Drift",
        "Station Nova Sector Galaxy Moon Belt",
    ),
    "mystery": (
        "Midnight Quiet Velvet Crooked Missing Second Foggy Locked Marble Patient Narrow Vanished",
        "Detective Witness Letter Alibi Stranger Portrait Inspector Secret Key Verdict Clue Shadow",
        "Street Manor Alley Parlor Hotel Archive",
    ),
    "fantasy": (
        "Ancient Thorn Golden Whispering Runed Moonlit Last Ashen Hidden Iron Feathered Enchanted",
        "Dragon Sorcerer Crown Prophecy Blade Oracle Raven Throne Witch Giant Spell Knight",
        "Kingdom Forest Citadel Valley Tower Realm",
    ),
    "western": (
        "Dusty Lone Copper Wild Thirsty Painted Outlaw Dry Rusty Bright Stubborn Wandering",
        "Sheriff Rider Stagecoach Coyote Gunsmith Rancher Prospector Saddle Bandit Duel Mustang Preacher",
        "Canyon Creek Mesa Prairie Junction Gulch",
    ),
    "comedy": (
        "Accidental Cheerful Lucky Clumsy Jolly Borrowed Perfect Sunday Noisy Grand Tiny Backward",
        "Wedding Neighbor Roommate Holiday Baker Cousin Parade Umbrella Waiter Reunion Goose Dentist",
        "Bakery Suburb Campus Diner Village Arcade",
    ),
    "horror": (
        "Haunted Cold Black Whisper Rotten Buried Screaming Endless Sleepless Bleeding Cursed Gray",
        "Doll Ghost Scarecrow Cellar Grave Nightmare Visitor Candle Mask Swarm Mirror Orphan",
        "House Asylum Hollow Swamp Chapel Attic",
    ),
    "sport": (
        "Final Rising Barefoot Rookie Winter Fearless Golden Underdog Electric Uphill Local Flying",
        "Champion Coach Season Striker Relay Rival Marathon Goalkeeper Trophy Sprint Legend Whistle",
        "Stadium League Arena Track Summit Court",
    ),
}
SERIES_WORDS = ["Chronicles", "Nights", "Legacy", "Returns", "Tales", "Origins", "Files", "Rising"]


@dataclass
class _Series:
    franchise: int
    items: list[int] = field(default_factory=list)
    """Item numbers of its volumes, in order."""


@dataclass
class _World:
    titles: list[str] = field(default_factory=list)
    series: list[_Series] = field(default_factory=list)
    franchises: list[list[int]] = field(default_factory=list)
    """Series of each franchise."""
    genre_of: list[int] = field(default_factory=list)
    """Genre of each franchise."""


def _geometric(rng: np.random.Generator, mean: float, most: int) -> int:
    return int(min(most, rng.geometric(1 / mean)))


def _title(rng: np.random.Generator, series: str, adjectives: list[str], nouns: list[str]) -> str:
    adjective = rng.choice(adjectives)
    noun, second = rng.choice(nouns, 2, replace=False)
    article = "An" if adjective[0] in "AEIOU" else "A"
    forms = (
        f"The {adjective} {noun}",
        f"{noun} of the {second}",
        f"{adjective} {noun}",
        f"The {noun} and the {second}",
        f"{article} {adjective} {noun}",
    )
    return f"{series}: {forms[rng.integers(len(forms))]}"


def _build_world(rng: np.random.Generator, items: int) -> _World:
    world = _World()
    used: set[str] = set()
    genres = [tuple(text.split() for text in words) for words in GENRES.values()]

    def distinct(make: Callable[[], str]) -> str:
        """A new name of at most 8 words; numbered, as studios do, when the words run out."""
        for attempt in range(10_000):
            name = make() if attempt < 100 else f"{make()} {attempt}"
            if name not in used and len(name.split()) <= MAX_WORDS:
                break
        used.add(name)
        return name

    while len(world.titles) < items:
        franchise = len(world.franchises)
        genre = franchise % len(genres)
        adjectives, nouns, places = genres[genre]

        def place(adjectives: list[str] = adjectives, places: list[str] = places) -> str:
            return f"{rng.choice(adjectives)} {rng.choice(places)}"

        name = distinct(place)
        count = _geometric(rng, MEAN_SERIES, 3)
        kinds = rng.choice(SERIES_WORDS, count, replace=False).tolist() if count > 1 else [""]
        world.franchises.append([])
        world.genre_of.append(genre)
        for kind in kinds:
            volumes = min(_geometric(rng, MEAN_VOLUMES, 10), items - len(world.titles))
            if not volumes:
                break
            make = partial(_title, rng, f"{name} {kind}".strip(), adjectives, nouns)
            world.franchises[franchise].append(len(world.series))
            world.series.append(_Series(franchise, [len(world.titles) + i for i in range(volumes)]))
            world.titles += [distinct(make) for _ in range(volumes)]
    return world


@dataclass
class _Popularity:
    """Franchises of a genre and their cumulative popularity, for draws by bisection."""

    members: list[int]
    cumulative: list[float]

    def draw(self, uniform: float) -> int:
        return self.members[_pick(self.cumulative, uniform)]


def _pick(cumulative: Sequence[float], uniform: float) -> int:
    return min(bisect_right(cumulative, uniform * cumulative[-1]), len(cumulative) - 1)


def _step(
    world: _World,
    popularity: list[_Popularity],
    taste: list[float],
    series: int,
    seen: set[int],
    draws: list[float],
) -> tuple[int, int] | None:
    """One attempt at a move from `series` (-1 at the start): (series, item), or None when nothing unseen is
    there."""
    move, pick_genre, pick_franchise, pick_series, enter = draws
    if series >= 0 and move < STAY_IN_SERIES:
        volumes = world.series[series].items
        later = volumes[1 + max(i for i, item in enumerate(volumes) if item in seen) :]
        return (series, later[0]) if later else None
    franchise = world.series[series].franchise
    if series >= 0 and move < STAY_IN_SERIES + STAY_IN_FRANCHISE:
        choices = [s for s in world.franchises[franchise] if s != series]
    else:
        stay = series >= 0 and move < STAY_IN_SERIES + STAY_IN_FRANCHISE + STAY_IN_GENRE
        genre = world.genre_of[franchise] if stay else _pick(taste, pick_genre)
        choices = world.franchises[popularity[genre].draw(pick_franchise)]
    if not choices:
        return None
    target = choices[int(pick_series * len(choices))]
    unseen = [item for item in world.series[target].items if item not in seen]
    if not unseen:
        return None
    spread = max(0.0, enter - START_AT_FIRST) / (1 - START_AT_FIRST)
    return target, unseen[int(spread * len(unseen))]


def _walk(rng: np.random.Generator, world: _World, users: int) -> tuple[list[int], list[int], list[int]]:
    """Every user's (user, item, time in seconds)."""
    weights = (rng.permutation(len(world.franchises)) + 1.0) ** -POPULARITY_EXPONENT
    popularity = []
    for genre in range(len(GENRES)):
        members = [f for f, g in enumerate(world.genre_of) if g == genre]
        popularity.append(_Popularity(members, list(accumulate(weights[members].tolist()))))
    tastes = rng.dirichlet(np.full(len(GENRES), TASTE), size=users)
    lengths = np.minimum(
        MIN_LENGTH - 1 + rng.geometric(1 / (MEAN_EXTRA + 1), size=users), MAX_LENGTH
    ).tolist()
    starts = (FIRST_DAY + rng.integers(0, DAYS, size=users)).tolist()
    rows: tuple[list[int], list[int], list[int]] = ([], [], [])
    for user, (length, day) in enumerate(zip(lengths, starts, strict=True)):
        taste = list(accumulate(tastes[user].tolist()))
        seen: set[int] = set()
        series = -1
        attempts = rng.random((length, 20, 5)).tolist()
        gaps = rng.exponential(MEAN_GAP, size=length).astype(int).tolist()
        for tries, gap in zip(attempts, gaps, strict=True):
            moves = (_step(world, popularity, taste, series, seen, draws) for draws in tries)
            found = next((move for move in moves if move), None)
            if found is None:
                break  # twenty tries found nothing unseen: the user stops
            series, item = found
            seen.add(item)
            for column, value in zip(rows, (user, item, day * DAY_SECONDS), strict=True):
                column.append(value)
            day += gap
    return rows


def make_demo(
    out_dir: str | Path, *, seed: int = 0, items: int = 600, users: int = 4_000, force: bool = False
) -> Path:
    """Write the demo catalogue as a data set. The same arguments give the same files.

    Args:
        out_dir: folder to create.
        seed: of the whole process.
        items: films in the catalogue, about: the 5-core decides.
        users: users before the 5-core.
        force: replace a folder that is not empty.

    Returns:
        The folder.

    Raises:
        ConfigError: fewer than 50 items or users, or a negative seed.
        DataError, StorageError: as `bearray.data.write.write_dataset`.
    """
    for name, value, low in (("items", items, 50), ("users", users, 50), ("seed", seed, 0)):
        if value < low:
            raise ConfigError(f"demo {name} is {value}; it must be at least {low}")
    rng = np.random.default_rng(seed)
    world = _build_world(rng, round(items * SPARE))
    who, what, when = (np.asarray(column, dtype=np.int64) for column in _walk(rng, world, users))
    keep = k_core(who, what, K_CORE)
    kept_items, item_code = np.unique(what[keep], return_inverse=True)
    user_code = np.unique(who[keep], return_inverse=True)[1]
    table = items_table(np.arange(1, len(kept_items) + 1), [world.titles[i] for i in kept_items.tolist()])
    splits = split_windows(make_windows(user_code + 1, item_code + 1, when[keep]))
    return write_dataset(Path(out_dir), table, splits, force=force)
