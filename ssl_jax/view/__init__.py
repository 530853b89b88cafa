"""Pictures of data, networks and results, and the report page."""
