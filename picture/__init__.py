"""Everything that is made of pixels: the canvas, the target's stored pictures, its scene, limb warping, and films."""
