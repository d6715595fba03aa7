"""What belongs to the activation atlas of a layer: three tables, in files called as the layer."""

from actmine.schemas.atlas_cells import CELLS
from actmine.schemas.atlas_crops import POINT_CROPS
from actmine.schemas.atlas_points import POINTS

FOLDER, NOTED = "activation_atlas", "activation_atlases"
"""The folder of these tables, and what `run.json` calls what is known of them, by layer."""
TABLES = {"points": POINTS, "cells": CELLS, "crops": POINT_CROPS}
"""By what the names of their files end in."""
