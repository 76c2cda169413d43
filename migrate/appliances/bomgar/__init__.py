"""The family `bomgar`: one vendor's remote-support appliance, through its documented API and, for the rest, its pages."""
