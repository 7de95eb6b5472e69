"""A person's own files to corpora: any folder or table of videos, sounds and images, with captions or classes."""
