/** Highest resident memory of this process so far, bytes. It never falls, so a warm engine reports the largest of its jobs. */
export function peakRssBytes(): number {
  return process.resourceUsage().maxRSS * 1024;
}
