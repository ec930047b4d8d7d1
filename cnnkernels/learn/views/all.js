// The views, in the order of the page.
"use strict";

const VIEWS = [
  convolutionView, inputGradientView, filterGradientView, poolView, gemmView, phasesView, swizzleView,
];
