"""What a network has learned, what it looks at, and what it costs: of anybody's model, which stays as it is.

    from cnnkernels import visualize

    maps = visualize.feature_maps(model, images, ["layer1", "layer4"])
    heat = visualize.grad_cam(model, images, model.layer4)
    print(visualize.cost(model, images))
    visualize.draw_maps(heat, images).savefig("heat.png")

Each function computes a tensor or a table; `draw_*` make a figure of it, and need matplotlib. Models are run as they
are (call `eval()` first); hooks are taken off again, no parameter's `grad` is touched.
"""

from .cost import Cost, Layer, cost
from .features import feature_maps, filters
from .figures import draw_cost, draw_filters, draw_maps, draw_tuning
from .maximize import maximize
from .receptive_field import ReceptiveField, receptive_field
from .saliency import grad_cam, occlusion

__all__ = [
    "Cost",
    "Layer",
    "ReceptiveField",
    "cost",
    "draw_cost",
    "draw_filters",
    "draw_maps",
    "draw_tuning",
    "feature_maps",
    "filters",
    "grad_cam",
    "maximize",
    "occlusion",
    "receptive_field",
]
