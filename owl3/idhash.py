"""Sample ids as numbers: what shuffles go by, and what proves which samples a step held.

All of it is arithmetic that is fixed here, so that no update of a library moves an order or a proof.
"""

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

U64 = npt.NDArray[np.uint64]

_HEX = np.full(256, 255, dtype=np.uint8)
_HEX[np.frombuffer(b"0123456789abcdef", dtype=np.uint8)] = np.arange(16, dtype=np.uint8)


def id_words(ids: pa.Array | pa.ChunkedArray) -> U64:
    """Turn 32-digit hex ids into numbers: array (n, 2), high and low 64 bits.

    Raises:
        ValueError: when an id is not 32 hex digits.
    """
    joined = pa.concat_arrays(ids.chunks) if isinstance(ids, pa.ChunkedArray) and ids.num_chunks else ids
    if len(joined) == 0:
        return np.zeros((0, 2), dtype=np.uint64)
    fixed = joined.cast(pa.binary(32))
    digits = np.frombuffer(fixed.buffers()[1], dtype=np.uint8)[fixed.offset * 32 :][: len(fixed) * 32]
    values = _HEX[digits].reshape(-1, 32)
    if values.max() > 15:
        raise ValueError("a sample id is not 32 lower-case hex digits")
    nibbles = (values[:, 0::2] << 4) | values[:, 1::2]
    return np.ascontiguousarray(nibbles).view(">u8").astype(np.uint64)


def mix64(value: U64) -> U64:
    """Scramble 64-bit numbers, one to one (splitmix64's finaliser)."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def fingerprints(ids: U64, slots: npt.NDArray[np.integer[Any]]) -> U64:
    """Scramble (id, slot in the step) to 128 bits: array (n, 2).

    Their sum modulo 2^64 over a step is the step's fingerprint. Ranks add up what they read and the sums are added over
    ranks, so the proof needs 16 bytes per step and is the same at any world size.
    """
    slot = mix64(np.asarray(slots).astype(np.uint64))
    high, low = ids[:, 0], ids[:, 1]
    return np.stack([mix64(high ^ mix64(low + slot)), mix64(low ^ mix64(high - slot))], axis=1)


def chain_digest(before: str, step_fingerprints: U64) -> str:
    """Extend a prefix digest by the fingerprints of the next steps."""
    return hashlib.sha256(before.encode() + np.ascontiguousarray(step_fingerprints, dtype="<u8").tobytes()).hexdigest()
