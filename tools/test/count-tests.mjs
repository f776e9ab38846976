/**
 * Totals of a Jest run. A test file that could not even run counts as one failure; so does a run without results.
 * @param results Jest's `--json` output, or undefined
 */
export function countTests(results) {
  if (results === undefined) return { passed: 0, failed: 1, skipped: 0 };
  return {
    passed: results.numPassedTests,
    failed: results.numFailedTests + results.numRuntimeErrorTestSuites,
    skipped: results.numPendingTests + results.numTodoTests,
  };
}
