"""Lay out a synthetic drive: where along the road everything stands, and the weather there."""

from dataclasses import dataclass

import numpy as np

from roadstream.workers.demo.canvas import Sprite
from roadstream.workers.demo.sprites import sprites

LANE = 3.5  # metres; the car drives in the middle of the right lane, at x = 0
LEFT_EDGE, RIGHT_EDGE = -1.5 * LANE, 0.5 * LANE  # outer markings of the two lanes
ASPHALT_LEFT, ASPHALT_RIGHT = LEFT_EDGE - 0.7, RIGHT_EDGE + 1.1

VIEW = 170.0  # metres to the farthest thing drawn
WORK_VIEW = 50.0  # metres at which roadwork comes into sight; nearer, the picture is labelled so
NEAREST = 3.0  # metres at which things leave the picture
_WORK_SHARE = 0.42  # of the drive, in sight of roadwork
_FRAMES_PER_ZONE = 40
_STEP = 4.0  # metres between two frames: 58 km/h at four pictures a second
_SHORTEST_PERIOD = 190.0  # metres per zone, so that there is road without roadwork between

Colour = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Weather:
    """Light and air. Colours are RGB from 0 to 255; the rest are shares or metres.

    Attributes:
        zenith: Sky above.
        horizon: Sky low down, and the colour of haze.
        light: Factor on everything's colour, per channel.
        visibility: Metres after which haze hides 63 %.
        clouds: How much the clouds show.
        wet: How much the road mirrors the sky.
        rain: Share of the streaks drawn.
        lamps: How strongly headlights shine.
    """

    zenith: Colour
    horizon: Colour
    light: Colour
    visibility: float
    clouds: float
    wet: float = 0.0
    rain: float = 0.0
    lamps: float = 0.0


WEATHERS: dict[str, Weather] = {
    "sun": Weather((74, 128, 196), (196, 214, 230), (1.08, 1.04, 0.97), 900, 0.5),
    "overcast": Weather((158, 166, 176), (208, 212, 216), (0.9, 0.92, 0.95), 420, 0.35),
    "rain": Weather((112, 120, 130), (164, 170, 176), (0.68, 0.71, 0.75), 150, 0.3, 0.5, 1.0, 0.35),
    "fog": Weather((178, 182, 186), (196, 199, 202), (0.88, 0.89, 0.9), 48, 0.0, 0.1),
    "dusk": Weather((38, 50, 92), (226, 138, 92), (0.5, 0.44, 0.47), 420, 0.6, 0.0, 0.0, 1.0),
}


@dataclass(frozen=True, slots=True)
class Thing:
    """A sprite in the world, ``x`` metres right of the car's lane, ``at`` metres along the road.

    ``speed`` is in metres per frame, for traffic.
    """

    sprite: Sprite
    x: float
    at: float
    work: bool = False
    mirrored: bool = False
    speed: float = 0.0


@dataclass(frozen=True, slots=True)
class Zone:
    """A stretch of roadwork along the road, on one side of it."""

    start: float
    end: float
    side: int


@dataclass(frozen=True, slots=True)
class World:
    """A drive's layout.

    Attributes:
        step: Metres between two frames.
        things: Everything that stands or moves, in no order.
        zones: Stretches of roadwork.
        weathers: Weather at equal distances along the drive.
        phases: Phases of the road's bends.
    """

    step: float
    things: tuple[Thing, ...]
    zones: tuple[Zone, ...]
    weathers: tuple[Weather, ...]
    phases: tuple[float, float]
    length: float

    def curvature(self, at: float) -> float:
        """Return the bend of the road in 1/metres, positive to the right."""
        slow, fast = self.phases
        return float(6e-4 * np.sin(at / 170 + slow) + 4e-4 * np.sin(at / 67 + fast))

    def working(self, at: float) -> bool:
        """Whether roadwork is in sight of a car at ``at`` metres."""
        return any(zone.start - WORK_VIEW <= at <= zone.end - 6 for zone in self.zones)

    def weather(self, at: float) -> Weather:
        """Blend the weather at ``at`` metres."""
        place = at / self.length * len(self.weathers) - 0.5
        first = int(np.clip(np.floor(place), 0, len(self.weathers) - 1))
        second = min(first + 1, len(self.weathers) - 1)
        share = float(np.clip((place - first - 0.35) / 0.3, 0, 1))
        return _blend(self.weathers[first], self.weathers[second], share)


def build_world(frames: int, rng: np.random.Generator) -> World:
    """Lay out a drive of so many frames."""
    zone_count = max(1, round(frames / _FRAMES_PER_ZONE))
    step = max(_STEP, _SHORTEST_PERIOD * zone_count / frames)
    length = step * frames
    zones = _zones(length, zone_count, rng)
    things = [*_scenery(length, zones, rng), *_traffic(length, step, rng)]
    for zone in zones:
        things += _roadwork(zone, rng)
    names = ["sun", *rng.permutation(["overcast", "dusk", "rain", "fog", "sun"]).tolist()]
    weathers = [WEATHERS[names[k % len(names)]] for k in range(max(1, frames // 16))]
    phases = (float(rng.uniform(0, 6)), float(rng.uniform(0, 6)))
    return World(step, tuple(things), tuple(zones), tuple(weathers), phases, length)


def _zones(length: float, count: int, rng: np.random.Generator) -> list[Zone]:
    period = length / count
    zones = []
    for k in range(count):
        sight = period * _WORK_SHARE
        begin = k * period + float(rng.uniform(0.25, 0.5)) * period
        end = begin + sight + 6
        zones.append(Zone(begin + WORK_VIEW, end, 1 if rng.uniform() < 0.75 else -1))
    return zones


def _roadwork(zone: Zone, rng: np.random.Generator) -> list[Thing]:
    """Signs, a taper of cones, a row of drums, posts or cones, machines, barriers and workers."""
    end = max(zone.end, zone.start + 24)
    kinds = sprites()
    edge = RIGHT_EDGE if zone.side > 0 else LEFT_EDGE

    def put(kind: str, out: float, at: float, *, mirrored: bool = False) -> Thing:
        some = kinds[kind]
        sprite = some[int(rng.integers(len(some)))]
        return Thing(sprite, edge + zone.side * out, at, work=True, mirrored=mirrored)

    things = [put("work_sign", 1.9, zone.start), put("barrier", 1.1, zone.start + 8)]
    taper = np.linspace(0, 1, 7)
    things += [put("cone", 1.2 - 1.0 * t, zone.start + 2 + 14 * t) for t in taper]
    row = ("cone", "drum", "post")[int(rng.integers(3))]
    things += [put(row, 0.15, at) for at in np.arange(zone.start + 19, end, 4.2).tolist()]
    middle = float(rng.uniform(zone.start + 18, max(end - 4, zone.start + 22)))
    things.append(put("machine", 4.4, middle, mirrored=zone.side < 0))
    for _ in range(int(rng.integers(2, 5))):
        at = float(rng.uniform(zone.start + 14, end))
        things.append(put("worker", float(rng.uniform(1.2, 3.0)), at))
    for at in np.arange(zone.start + 24, end, 17.0).tolist():
        things.append(put("barrier", 1.8, at))
    return things


def _scenery(length: float, zones: list[Zone], rng: np.random.Generator) -> list[Thing]:
    """Trees and houses beside the road, posts along it; none where there is work."""
    kinds = sprites()
    things: list[Thing] = []
    delineator, lamp, speed = kinds["roadside"]
    end = length + VIEW
    for at in np.arange(0, end, 25.0).tolist():
        things += [Thing(delineator, x, at) for x in (ASPHALT_LEFT - 0.6, ASPHALT_RIGHT + 0.6)]
    for at in np.arange(30, end, 48.0).tolist():
        things.append(Thing(lamp, ASPHALT_RIGHT + 1.3, at))
    things += [Thing(speed, ASPHALT_RIGHT + 0.9, at) for at in np.arange(70, end, 330.0).tolist()]
    at = 4.0
    while at < end:
        side = 1 if rng.uniform() < 0.5 else -1
        village = np.sin(at / 90) > 0.25
        kind = "house" if village and rng.uniform() < 0.4 else "tree"
        away = float(rng.uniform(11, 22)) if kind == "house" else float(rng.uniform(6.5, 34))
        edge = ASPHALT_RIGHT if side > 0 else ASPHALT_LEFT
        sprite = kinds[kind][int(rng.integers(len(kinds[kind])))]
        things.append(Thing(sprite, edge + side * away, at, mirrored=bool(rng.integers(2))))
        at += float(rng.uniform(2.0, 7.0)) if kind == "tree" else 9.0
    near = ("lamp", "speed", "tree", "delineator")
    return [
        thing
        for thing in things
        if thing.sprite.name not in near
        or not any(
            zone.start - 4 <= thing.at <= zone.end + 4
            and 0 < zone.side * (thing.x - LEFT_EDGE / 2) < 13
            for zone in zones
        )
    ]


def _traffic(length: float, step: float, rng: np.random.Generator) -> list[Thing]:
    """Cars ahead at about our speed, and others coming towards us."""
    kinds = sprites()
    things = []
    for _ in range(max(2, round(length / 260))):
        sprite = kinds["car"][int(rng.integers(len(kinds["car"])))]
        # It is met at `meet`, some way ahead, and drifts away or nearer from there.
        ahead, frame = float(rng.uniform(16, 60)), float(rng.uniform(0, length / step))
        speed = step * float(rng.uniform(1.0, 1.05))
        things.append(Thing(sprite, 0.1, frame * step + ahead - speed * frame, speed=speed))
    for _ in range(max(3, round(length / 45))):
        sprite = kinds["oncoming"][int(rng.integers(len(kinds["oncoming"])))]
        start = float(rng.uniform(0, 2.1 * length))
        things.append(Thing(sprite, -LANE - 0.1, start, speed=-step * float(rng.uniform(0.9, 1.1))))
    return things


def _blend(one: Weather, other: Weather, share: float) -> Weather:
    """Mix two weathers; ``share`` in [0, 1] is the second's."""

    def mix(a: float, b: float) -> float:
        return a * (1 - share) + b * share

    def tint(a: Colour, b: Colour) -> Colour:
        return mix(a[0], b[0]), mix(a[1], b[1]), mix(a[2], b[2])

    return Weather(
        zenith=tint(one.zenith, other.zenith),
        horizon=tint(one.horizon, other.horizon),
        light=tint(one.light, other.light),
        visibility=mix(one.visibility, other.visibility),
        clouds=mix(one.clouds, other.clouds),
        wet=mix(one.wet, other.wet),
        rain=mix(one.rain, other.rain),
        lamps=mix(one.lamps, other.lamps),
    )
