"""What belongs to the activation atlas of a layer: three tables, each a folder with a file per layer."""

from actmine.schemas.atlas_cells import CELLS
from actmine.schemas.atlas_crops import POINT_CROPS
from actmine.schemas.atlas_points import POINTS

NOTED = "activation_atlases"
"""What `run.json` calls what is known of them, by layer."""
TABLES = {"atlas_points": POINTS, "atlas_cells": CELLS, "atlas_crops": POINT_CROPS}
