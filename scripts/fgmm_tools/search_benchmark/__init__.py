"""How well and how fast a search finds, in parts that can be run one by one.

settings    the parts, and what they can be told
recall      coarse-then-fine against fine search of everything; fewer regions of a window
latency     a million random vectors: this project's vectors, NumPy and LanceDB
moments     moments of stitched videos, or of QVHighlights and Charades-STA; the time that indexing takes
updating    adding a few files to an index of many
load        sixteen clients of a served search
record      the results file, to which each part adds its own
"""
