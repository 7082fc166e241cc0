"""Results made from a study: exported files, verification, reports, figures and the dashboard."""
