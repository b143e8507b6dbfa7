"""Where converted weights land, beside the manifest of the checkpoints they come from."""
