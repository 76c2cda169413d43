"""OVF: what a bundle says of its machines, as values; and the other way round."""
