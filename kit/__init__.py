"""The ground floor: what every room of boxshift shares. It imports nothing of the other rooms."""
