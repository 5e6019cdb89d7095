"""The composition root: from settings to the stores, the model and everything that is built on them."""

from ww_core.deployment.root import Deployment
from ww_core.deployment.stores import GRAPH_FILE

__all__ = ["GRAPH_FILE", "Deployment"]
