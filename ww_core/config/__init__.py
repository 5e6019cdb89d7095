"""Every setting, with its unit, range and default, and where its value comes from.

Precedence: keyword or command-line option, ``T4DM_*`` environment variable, t4dm.yaml, preset, default.
"""

from ww_core.config.checks import ALERTS, GUIDE_RANGES, SettingsWarning
from ww_core.config.settings import Settings

__all__ = ["ALERTS", "GUIDE_RANGES", "Settings", "SettingsWarning"]
