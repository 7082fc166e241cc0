"""The HTML report of a study: one file that opens without a network.

``answers`` computes what is said, ``tables`` and ``growth`` the rows and curves, ``write`` fills the template.
"""
