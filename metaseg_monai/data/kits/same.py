"""Which planes, and which whole volumes, are equal: by a coarse sample first, then wholly."""

import hashlib
from collections import defaultdict

import numpy as np

SAMPLE_STEP = 16  # pixels between those compared first
BLOCK = 32  # planes brought into their own order at a time


def sample_digest(planes: np.ndarray, sparse: bool) -> str:
    """Digest of the shape and of a coarse sample of every plane, or of all planes with structure.

    Equal digests are a suspicion only: images without noise may differ between the samples.

    Args:
        planes: (D, H, W) of any numbers; the digest is that of their values as float32.
        sparse: look at all of the planes that are not 0 everywhere, of a label.

    Returns:
        The digest; "" for a label without any structure, which is like any other.
    """
    if sparse:
        filled = np.flatnonzero(planes.any(axis=(1, 2)))
        if not len(filled):
            return ""
        shown = planes[filled]
    else:
        shown = planes[:, ::SAMPLE_STEP, ::SAMPLE_STEP]
    digest = hashlib.sha256(str(planes.shape).encode())
    digest.update(np.ascontiguousarray(shown).astype("<f4").tobytes())
    return digest.hexdigest()


def whole_digest(planes: np.ndarray) -> str:
    """Digest of all values (D, H, W) as float32, the same however memory or a file holds them."""
    digest = hashlib.sha256(str(planes.shape).encode())
    for start in range(0, len(planes), BLOCK):
        digest.update(planes[start : start + BLOCK].astype("<f4").tobytes())
    return digest.hexdigest()


def equal_planes(planes: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of planes (D, H, W) that are equal to the bit, each with its first like; no constant.

    A coarse sample of every plane is compared first, so that few planes are looked at wholly.
    """
    sample = np.ascontiguousarray(planes[:, ::SAMPLE_STEP, ::SAMPLE_STEP])
    of_sample: dict[bytes, list[int]] = defaultdict(list)
    for plane, pixels in enumerate(sample):
        of_sample[pixels.tobytes()].append(plane)
    pairs = []
    for alike in of_sample.values():
        first: dict[bytes, int] = {}
        for plane in alike if len(alike) > 1 else []:
            digest = hashlib.sha256(planes[plane].tobytes()).digest()
            like = first.setdefault(digest, plane)
            if like != plane and planes[plane].min() != planes[plane].max():
                pairs.append((like, plane))
    return sorted(pairs, key=lambda pair: pair[1])
