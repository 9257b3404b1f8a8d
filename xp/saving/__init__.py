"""What a training leaves on the disk while it goes on, so that it can be taken up at any moment."""
