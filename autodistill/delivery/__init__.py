"""SHIPS: pictures, reports and files made from a study."""
