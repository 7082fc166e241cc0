"""Views of images: operations, policies, mixup and cutmix, and random numbers that depend on counters only.

A view is a function of (seed, image, view number), so that teacher and student see the same one.
"""
