"""Writes what the contract tests compare with: ``python tests/contract/make_golden.py config_keys``.

Only for a contract that changes on purpose: look at the difference before it is committed.
"""

from __future__ import annotations

import sys

from public import write_golden


def config_keys() -> None:
    """Every config key and its default."""
    from test_commands import choices, keys_of, packed

    write_golden("config_keys", packed({line: keys_of(line) for line in choices()}))


PARTS = {"config_keys": config_keys}

if __name__ == "__main__":
    for part in sys.argv[1:]:
        PARTS[part]()
