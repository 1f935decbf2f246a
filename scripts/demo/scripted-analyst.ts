/**
 * The script that stands in for a model when there is no OPENAI_API_KEY. Only the choice of the next step is scripted: every
 * tool call does real work in the guest, and the final text quotes what the guest answered.
 */

export type ToolOutput = { readonly callId: string; readonly text: string };

type OutputItem = Record<string, unknown>;

const ANALYSIS = `python3 - <<'PY'
import csv, statistics
rows = [(r["region"], float(r["revenue"])) for r in csv.DictReader(open("sales.csv"))]
median = statistics.median(value for _, value in rows)
mad = statistics.median(abs(value - median) for _, value in rows)
for region, value in rows:
    score = 0.6745 * (value - median) / mad
    verdict = "OUTLIER" if abs(score) > 3.5 else "usual"
    print(f"{region}: revenue {value:g}, {value / median:.1f} x the median, modified z-score {score:+.1f}: {verdict}")
PY`;

const execCommand = (callId: string, cmd: string): OutputItem => ({
  type: 'function_call',
  id: `fc_${callId}`,
  call_id: callId,
  name: 'exec_command',
  arguments: JSON.stringify({ cmd, tty: false, login: true, yield_time_ms: 30_000 }),
  status: 'completed',
});

/** The patch tool in the form in which the SDK of this run offers it: the hosted type, or a custom tool with a text. */
const createFile = (
  callId: string,
  path: string,
  lines: readonly string[],
  hasHostedPatchTool: boolean,
): OutputItem => {
  const added = lines.map((line) => `+${line}\n`).join('');
  const common = { id: `apc_${callId}`, call_id: callId, status: 'completed' };
  if (hasHostedPatchTool) {
    return { type: 'apply_patch_call', ...common, operation: { type: 'create_file', path, diff: added } };
  }
  const input = `*** Begin Patch\n*** Add File: ${path}\n${added}*** End Patch\n`;
  return { type: 'custom_tool_call', ...common, name: 'apply_patch', input };
};

const message = (text: string): OutputItem => ({
  type: 'message',
  id: 'msg_final',
  role: 'assistant',
  status: 'completed',
  content: [{ type: 'output_text', text, annotations: [] }],
});

/** What follows "Output:" in the text that the shell tool gives a model. */
export function commandOutput(toolText: string): string {
  const marker = 'Output:\n';
  const at = toolText.indexOf(marker);
  return (at < 0 ? toolText : toolText.slice(at + marker.length)).trimEnd();
}

/**
 * The next step, from the outputs so far: look at the file, compute the outliers there, write a report with a patch, read it
 * back, answer.
 */
export function nextStep(outputs: readonly ToolOutput[], hasHostedPatchTool: boolean): OutputItem {
  const analysis = commandOutput(outputs[1]?.text ?? '');
  const outliers = analysis.split('\n').filter((line) => line.endsWith('OUTLIER'));
  switch (outputs.length) {
    case 0:
      return execCommand('look', 'ls -l && cat sales.csv');
    case 1:
      return execCommand('analyse', ANALYSIS);
    case 2:
      return createFile(
        'report',
        'report.md',
        ['# Outliers in sales.csv', '', ...outliers.map((line) => `- ${line}`)],
        hasHostedPatchTool,
      );
    case 3:
      return execCommand('verify', 'uname -sr && cat report.md');
    default:
      return message(
        outliers.length === 0
          ? `The analysis in the sandbox found no outlier. It printed:\n${analysis}`
          : `What stands out, as computed in the sandbox from sales.csv:\n${outliers.join('\n')}\nThe report is in report.md.`,
      );
  }
}
