"""This room's fixtures; what they are made of is in reference_boxes.py, which tests import from."""

from reference_boxes import make_box, shared_boxes, shop, vendor
from reference_pairs import one_pair, two_boxes

__all__ = ["make_box", "one_pair", "shared_boxes", "shop", "two_boxes", "vendor"]
