// Colours of the theme, for canvases: the value of a custom property.

export function colour(property: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(property).trim();
}
