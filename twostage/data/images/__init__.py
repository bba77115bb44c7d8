"""Images as integer arrays: named sets, folders, packed files and drawn shapes.

What recordings need as well is one folder up; networks and likelihoods never see files.
"""
