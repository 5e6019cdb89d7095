"""The errors an application may catch."""

from ww_core.errors import (
    BlockingCall,
    BrokerUnavailable,
    Busy,
    ConfigurationError,
    EpisodeConflict,
    FlushTimeout,
    InvalidInput,
    ModelUnavailable,
    NotFound,
    StoreUnavailable,
    Unavailable,
    WorldWeaverError,
)

__all__ = [
    "BlockingCall",
    "BrokerUnavailable",
    "Busy",
    "ConfigurationError",
    "EpisodeConflict",
    "FlushTimeout",
    "InvalidInput",
    "ModelUnavailable",
    "NotFound",
    "StoreUnavailable",
    "Unavailable",
    "WorldWeaverError",
]
