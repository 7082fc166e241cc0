"""The HTML report of a study: one file that opens without a network.

``answers`` computes the answers, ``tables`` and ``growth`` the rows and curves, and ``write`` fills the template.
"""
