"""Everything that is made of pixels: the canvas, the target's stored pictures, its scene, and films."""
