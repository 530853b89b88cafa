"""Clips: video files and folders of numbered images, with frames by index, their times, and their sound.

`clips.open_clip` opens either kind. PyAV (the extra `video`) is imported when the first file is opened.
"""
