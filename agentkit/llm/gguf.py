"""Reading GGUF files: the header and the tensors' places, checked, without building an object a field.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3, little-endian).
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentkit.llm.errors import DamagedModel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MAX_DIMS = 8


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor lies. ``shape`` is in row-major order (the file lists dimensions from the fastest)."""

    shape: tuple[int, ...]
    type_id: int
    offset: int
    n_bytes: int


@dataclass(frozen=True, slots=True)
class GGUF:
    """A checked GGUF file: its metadata, and the places of its tensors."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, TensorInfo]

    def load(self, name: str) -> NDArray[np.float32]:
        """The tensor ``name`` of ``shape``, dequantised to float32."""
        import numpy as np
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize

        info = self.tensors[name]
        raw: NDArray[np.uint8] = np.fromfile(self.path, dtype=np.uint8, count=info.n_bytes, offset=info.offset)
        rows = raw.reshape(*info.shape[:-1], -1)
        values: NDArray[np.float32] = dequantize(rows, GGMLQuantizationType(info.type_id))
        return np.ascontiguousarray(values.reshape(info.shape), dtype=np.float32)


def read(path: Path) -> GGUF:
    """Read the header of ``path`` and check that all its tensors lie inside the file.

    Raises `DamagedModel` when the file is not GGUF, is cut short, or names types that nobody knows.
    """
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    size = path.stat().st_size
    if size < 24:
        raise DamagedModel(f"{path} is not a GGUF file: it has only {size} bytes")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:4] != b"GGUF":
            raise DamagedModel(f"{path} is not a GGUF file: it begins with {data[:4]!r}")
        try:
            cursor = _Cursor(data)
            version, n_tensors, n_fields = cursor.take("IQQ")
            if version not in (2, 3):
                raise DamagedModel(f"{path} is GGUF version {version}; versions 2 and 3 can be read")
            metadata = {cursor.string(): cursor.value(cursor.one("I")) for _ in range(n_fields)}
            entries = []
            for _ in range(n_tensors):
                name, n_dims = cursor.string(), cursor.one("I")
                if n_dims > _MAX_DIMS:
                    raise DamagedModel(f"{path} is damaged: tensor {name!r} claims {n_dims} dimensions")
                dims = cursor.take(f"{n_dims}Q")
                type_id, offset = cursor.take("IQ")
                entries.append((name, dims, type_id, offset))
            header_end = cursor.at
        except (struct.error, UnicodeDecodeError, KeyError, OverflowError, MemoryError) as error:
            raise DamagedModel(f"{path} is damaged: its header cannot be read ({error})") from error
    alignment = int(metadata.get("general.alignment", 32))
    start = -(-header_end // alignment) * alignment
    tensors = {}
    for name, dims, type_id, offset in entries:
        try:
            block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(type_id)]
        except (ValueError, KeyError) as error:
            raise DamagedModel(f"{path}: tensor {name!r} has the unknown type {type_id}") from error
        count = 1
        for dim in dims:
            count *= dim
        n_bytes = count // block * block_bytes
        if start + offset + n_bytes > size:
            raise DamagedModel(
                f"{path} is cut short: tensor {name!r} ends at {start + offset + n_bytes}, file at {size}"
            )
        tensors[name] = TensorInfo(tuple(reversed(dims)), type_id, start + offset, n_bytes)
    return GGUF(path, metadata, tensors)


class _Cursor:
    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at = data, 4

    def take(self, format_: str) -> tuple[Any, ...]:
        values = struct.unpack_from("<" + format_, self.data, self.at)
        self.at += struct.calcsize("<" + format_)
        return values

    def one(self, format_: str) -> Any:
        return self.take(format_)[0]

    def string(self) -> str:
        length = self.one("Q")
        if self.at + length > len(self.data):
            raise struct.error(f"a string of {length} bytes ends after the file")
        self.at += length
        return self.data[self.at - length : self.at].decode()

    def value(self, type_id: int) -> Any:
        if type_id == _STRING:
            return self.string()
        if type_id == _ARRAY:
            item_type, length = self.take("IQ")
            if length > len(self.data):
                raise struct.error(f"an array of {length} items ends after the file")
            if item_type in _SCALARS:
                return list(self.take(f"{length}{_SCALARS[item_type]}"))
            return [self.value(item_type) for _ in range(length)]
        return self.one(_SCALARS[type_id])
