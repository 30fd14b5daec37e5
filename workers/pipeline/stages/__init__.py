"""The built-in stages: load, resize, crop, enhance, watermark, save."""
