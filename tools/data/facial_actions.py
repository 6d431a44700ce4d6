# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Expressions as patterns of facial actions (ARKit's names), and how they change over a clip.

A name without its side, such as ``mouthSmile``, stands for both sides.
"""

import numpy as np

# class: ways to show it; each action with the least and the most that is seen at full intensity
PATTERNS = dict(
    neutral=[
        dict(),
        dict(jawOpen=(0.02, 0.2), mouthFunnel=(0, 0.2), mouthPucker=(0, 0.25)),  # speaks
        dict(eyeBlink=(0.1, 0.6), eyeLookDown=(0, 0.5)),
        dict(mouthFrown=(0.05, 0.25), browDown=(0, 0.2), mouthPress=(0, 0.3)),  # at rest, stern
        dict(mouthSmile=(0, 0.18), browInnerUp=(0, 0.2)),
    ],
    happiness=[
        dict(mouthSmile=(0.6, 1), cheekSquint=(0.1, 0.6), eyeSquint=(0, 0.4),
             mouthDimple=(0, 0.4)),
        dict(mouthSmile=(0.7, 1), mouthUpperUp=(0.3, 0.9), cheekSquint=(0.2, 0.9),
             eyeSquint=(0, 0.6), jawOpen=(0, 0.15), mouthLowerDown=(0, 0.4),
             mouthStretch=(0, 0.6)),
        dict(mouthSmile=(0.75, 1), jawOpen=(0.1, 0.6), mouthUpperUp=(0.3, 0.9),
             mouthLowerDown=(0, 0.5), mouthStretch=(0, 0.6), cheekSquint=(0.4, 1), eyeSquint=(0.1, 0.9),
             eyeBlink=(0, 0.5), browOuterUp=(0, 0.3)),
    ],
    sadness=[
        dict(browInnerUp=(0.5, 1), mouthFrown=(0.4, 1), mouthShrugLower=(0, 0.7),
             eyeBlink=(0, 0.35), eyeLookDown=(0, 0.6), mouthPress=(0, 0.3)),
        dict(browInnerUp=(0.6, 1), mouthFrown=(0.5, 1), eyeLookDown=(0.2, 0.9),
             eyeBlink=(0.1, 0.5), browDown=(0, 0.3)),
        dict(browInnerUp=(0.5, 1), browDown=(0.1, 0.5), mouthFrown=(0.5, 1), eyeSquint=(0.3, 0.9),
             mouthStretch=(0.1, 0.5), jawOpen=(0.02, 0.25), cheekSquint=(0, 0.5),
             mouthShrugLower=(0.2, 0.8)),
    ],
    anger=[
        dict(browDown=(0.7, 1), eyeSquint=(0.1, 0.6), mouthPress=(0.4, 1),
             mouthRollLower=(0, 0.5), mouthFrown=(0, 0.6), noseSneer=(0, 0.4)),
        dict(browDown=(0.7, 1), mouthUpperUp=(0.2, 0.7), mouthLowerDown=(0.3, 0.9),
             jawOpen=(0, 0.15), noseSneer=(0.1, 0.6), eyeSquint=(0.1, 0.6),
             mouthStretch=(0, 0.4)),
        dict(browDown=(0.75, 1), jawOpen=(0.25, 0.8), mouthUpperUp=(0.1, 0.6),
             mouthLowerDown=(0.2, 0.8), eyeWide=(0, 0.5), noseSneer=(0.1, 0.6),
             mouthFunnel=(0, 0.4)),
    ],
    surprise=[
        dict(browInnerUp=(0.5, 1), browOuterUp=(0.6, 1), eyeWide=(0.4, 1), jawOpen=(0.25, 0.9),
             mouthFunnel=(0, 0.4)),
        dict(browInnerUp=(0.6, 1), browOuterUp=(0.7, 1), eyeWide=(0.4, 1), jawOpen=(0.08, 0.3),
             mouthPucker=(0, 0.3)),
    ],
    disgust=[
        dict(noseSneer=(0.6, 1), mouthUpperUp=(0.4, 1), browDown=(0.1, 0.5), eyeSquint=(0.2, 0.8),
             cheekSquint=(0.2, 0.7), mouthFrown=(0, 0.4)),
        dict(noseSneer=(0.6, 1), mouthShrugUpper=(0.3, 0.9), mouthShrugLower=(0.3, 0.9),
             mouthFrown=(0.2, 0.7), browDown=(0.1, 0.6), eyeSquint=(0.2, 0.8)),
        dict(noseSneer=(0.6, 1), mouthUpperUp=(0.4, 1), jawOpen=(0.1, 0.4), tongueOut=(0, 0.7),
             mouthLowerDown=(0.1, 0.6), eyeSquint=(0.3, 0.9), browDown=(0.1, 0.5)),
    ],
    fear=[
        dict(browInnerUp=(0.6, 1), browOuterUp=(0.1, 0.5), browDown=(0.2, 0.6), eyeWide=(0.6, 1),
             mouthStretch=(0.5, 1), jawOpen=(0.05, 0.35), mouthLowerDown=(0.1, 0.6)),
        dict(browInnerUp=(0.6, 1), browDown=(0.2, 0.6), eyeWide=(0.6, 1), mouthStretch=(0.5, 1),
             mouthFrown=(0, 0.4), jawOpen=(0, 0.08)),
    ],
)  # fmt: skip
UPPER = ('brow', 'eye')  # actions above the cheeks; compound expressions take them from the second
COMPOUND = dict(
    happily_surprised=('happiness', 'surprise'), happily_disgusted=('happiness', 'disgust'),
    sadly_fearful=('sadness', 'fear'), sadly_angry=('sadness', 'anger'),
    fearfully_surprised=('fear', 'surprise'), angrily_surprised=('anger', 'surprise'),
    angrily_disgusted=('disgust', 'anger'), disgustedly_surprised=('disgust', 'surprise'),
)  # fmt: skip
# what only the course of a clip tells: by order, by length, by which part is first
TIMING = ('smile_onset', 'smile_offset', 'brow_flash', 'brow_raise', 'eyes_late', 'eyes_at_once')


def draw_pattern(name: str, labels: list[str], rng: np.random.Generator) -> np.ndarray:
    """Actions (52, ) of an expression at its apex, 0..1, with small ones that belong to none."""
    if name in COMPOUND:
        lower, upper = (draw_pattern(part, labels, rng) for part in COMPOUND[name])
        return np.where([label.startswith(UPPER) for label in labels], upper, lower)
    ways = PATTERNS[name]
    chosen = ways[rng.integers(len(ways))]
    strength = rng.uniform(0.75, 1.1)
    uneven = rng.normal(0, 0.05, len(labels))
    values = np.abs(rng.normal(0, 0.05, len(labels))) * (rng.random(len(labels)) < 0.3)
    for action, (low, high) in chosen.items():
        value = strength * rng.uniform(low, high)
        for i, label in enumerate(labels):
            if label in (action, f'{action}Left', f'{action}Right'):
                values[i] = max(values[i], value + uneven[i] * (value > 0.1))
    values[labels.index('tongueOut')] *= 'tongueOut' in chosen
    return np.clip(values, 0, 1)


def gaze(labels: list[str], across: float, up: float) -> np.ndarray:
    """Actions (52, ) that turn both eyes to the head's left (``across`` > 0) and up."""
    found = dict(eyeLookOutLeft=across, eyeLookInRight=across, eyeLookInLeft=-across)
    found |= dict(eyeLookOutRight=-across)
    found |= {f'eyeLook{way}{side}': v for side in ('Left', 'Right')
              for way, v in (('Up', up), ('Down', -up))}  # fmt: skip
    return np.clip([found.get(label, 0.0) for label in labels], 0, 1)


def rise(t: np.ndarray, start: float, length: float) -> np.ndarray:
    """A smooth step from 0 to 1."""
    x = np.clip((t - start) / length, 0, 1)
    return x * x * (3 - 2 * x)


def course(name: str, labels: list[str], frames: int, rng: np.random.Generator) -> np.ndarray:
    """Actions (frames, 52) of a clip.

    A class of ``PATTERNS`` or ``COMPOUND`` begins and ends neutral or near its apex. In a pair of
    ``TIMING`` both classes have the same frames, in another order, for another time, or with
    another lag.
    """
    t = np.linspace(0, 1, frames)[:, None]
    rest = draw_pattern('neutral', labels, rng) * 0.5
    start, length = rng.uniform(-0.15, 0.3), rng.uniform(0.12, 0.35)
    apex = draw_pattern({'s': 'happiness', 'b': 'surprise', 'e': 'happiness'}[name[0]]
                        if name in TIMING else name, labels, rng)  # fmt: skip
    eyes = np.array([label.startswith(UPPER) or 'cheek' in label for label in labels])
    share = rise(t, start, length)
    if name in TIMING:
        start, length = rng.uniform(0.15, 0.35), rng.uniform(0.2, 0.35)
        share = rise(t, start, length)
        if name == 'smile_offset':
            share = share[::-1]
        elif name in ('brow_flash', 'brow_raise'):
            held = 0.06 if name == 'brow_flash' else rng.uniform(0.35, 0.5)
            share = rise(t, start, 0.1) - rise(t, start + 0.1 + held, 0.1)
            apex = np.where([label.startswith('brow') for label in labels], apex, rest)
        elif name == 'eyes_late':
            share = np.where(eyes, rise(t, start + rng.uniform(0.25, 0.35), length), share)
        if name.startswith('eyes'):
            apex = np.where(eyes, np.maximum(apex, gaze(labels, 0, 0)), apex)
            for i, label in enumerate(labels):
                if label.startswith(('cheekSquint', 'eyeSquint')):
                    apex[i] = max(apex[i], rng.uniform(0.5, 0.9))
    elif rng.random() < 0.3:  # the offset is seen too
        share = share - rise(t, rng.uniform(0.65, 0.9), 0.3) * rng.uniform(0.3, 0.9)
    values = rest + (apex - rest) * np.clip(share, 0, 1)
    blink = np.exp(-(((t - rng.uniform(-0.3, 1.3)) / 0.04) ** 2))
    speech = rng.uniform(0, 0.12) * (1 + np.sin(2 * np.pi * (rng.uniform(1, 4) * t + rng.random())))
    is_blink = np.array([label.startswith('eyeBlink') for label in labels])
    is_jaw = np.array([label == 'jawOpen' for label in labels])
    return np.clip(
        np.maximum(values, blink * is_blink) + speech * is_jaw * (rng.random() < 0.4), 0, 1
    )
