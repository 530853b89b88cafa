"""Pictures of images, networks and results, and the report page."""
