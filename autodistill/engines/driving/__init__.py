"""What every engine needs: slots on devices, worker processes, lost and hung workers, candidates fetched ahead.

It drives; what is trained next is the decision of the study.
"""
