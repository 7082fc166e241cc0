"""Parts that every engine needs: slots on devices, worker processes, lost and hung workers, prefetched candidates.

The study decides what is trained next; the code here only runs it.
"""
