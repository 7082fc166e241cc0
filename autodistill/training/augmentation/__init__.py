"""Augmented views of images: pixel operations, policies, mixup and cutmix, and counter-based random numbers.

A view is a function of (policy, seed, image id, view number), so teacher and student can see the same view.
"""
