"""Item tokenizers for recore, on the tokenizers library. `ItemTokenizer` is imported when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recore_tokenizers.items import ItemTokenizer

__all__ = ["ItemTokenizer"]


def __getattr__(name: str) -> Any:
    if name == "ItemTokenizer":
        from recore_tokenizers.items import ItemTokenizer

        return ItemTokenizer
    raise AttributeError(f"module 'recore_tokenizers' has no attribute {name!r}")
