"""Any model other than CLIPmapper in the commands: its loading, its samples, and figures of its explanations."""
