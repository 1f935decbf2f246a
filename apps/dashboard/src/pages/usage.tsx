/** What is left of the credit, and what each day cost. */
import type { Breakdown, Forecast } from '../api/types.ts';
import { useBreakdown, useForecast, useSummary } from '../api/usage.ts';
import { Axes } from '../components/axes.tsx';
import { Failure, Loading } from '../components/notes.tsx';
import { PageHead } from '../components/page-head.tsx';

const DAYS = 30;
const COLUMNS = ['Day', 'vCPU hours', 'Memory, GiB hours', 'Storage, GiB hours', 'Sent out, GiB', 'Cost'] as const;

export function UsagePage() {
  const summary = useSummary();
  const breakdown = useBreakdown(DAYS);
  const forecast = useForecast();
  return (
    <>
      <PageHead title="Credit and usage" />
      {summary.isPending && <Loading />}
      {summary.isError && <Failure error={summary.error} />}
      {breakdown.isError && <Failure error={breakdown.error} />}
      {summary.data && !summary.data.enforced && (
        <p className="muted">This server counts, and stops nobody whose credit is used up.</p>
      )}
      {summary.data && (
        <dl className="figures">
          <Figure name="Left" value={dollars(summary.data.dollars.remaining)} />
          <Figure name="Spent this month" value={dollars(summary.data.dollars.used)} />
          <Figure name="Given" value={dollars(summary.data.dollars.allocated)} />
          {forecast.data && <Figure name="Lasts, at this pace" value={lasts(forecast.data)} />}
        </dl>
      )}
      {summary.data && breakdown.data && <Days breakdown={breakdown.data} />}
    </>
  );
}

function lasts({ days_left: days, remaining }: Forecast): string {
  if (remaining <= 0) return 'used up';
  if (days === null || days > 3_650) return 'over 10 years';
  return days < 1 ? 'less than a day' : `${Math.round(days)} days`;
}

const Figure = ({ name, value }: { name: string; value: string }) => (
  <div>
    <dt>{name}</dt>
    <dd>{value}</dd>
  </div>
);

function Days({ breakdown }: { breakdown: Breakdown }) {
  const { daily_breakdown: days, totals } = breakdown;
  const top = roundAbove(Math.max(...days.map(({ cost_dollars }) => cost_dollars), 0));
  const used = days.filter(({ cost_dollars, cpu_hours }) => cost_dollars > 0 || cpu_hours > 0);
  return (
    <section aria-labelledby="days">
      <h2 id="days">The last {DAYS} days</h2>
      <p className="muted">
        {dollars(totals.cost_dollars)} for {totals.cpu_hours.toFixed(2)} vCPU hours, {totals.ram_gib_hours.toFixed(2)}{' '}
        GiB hours of memory, {totals.storage_gib_hours.toFixed(2)} GiB hours of storage, and{' '}
        {totals.egress_gib.toFixed(2)} GiB sent out.
      </p>
      <figure className="plot days">
        <figcaption>Cost of each day, in dollars</figcaption>
        <Axes
          scale={[edge(top), edge(top / 2), edge(0)]}
          from={days[0] && dayOf(days[0].date)}
          to={days.at(-1) && dayOf(days.at(-1)?.date ?? '')}
        >
          <svg
            viewBox={`0 0 ${days.length * 10} 100`}
            preserveAspectRatio="none"
            role="img"
            aria-label="Cost of each day; the table below has the numbers"
          >
            <line className="grid" x1={0} x2={days.length * 10} y1={50} y2={50} />
            {days.map(({ date, cost_dollars }, index) => {
              const height = (cost_dollars / top) * 100;
              return (
                <rect key={date} x={index * 10 + 1} y={100 - height} width="8" height={height}>
                  <title>{`${dayOf(date)}: ${dollars(cost_dollars)}`}</title>
                </rect>
              );
            })}
          </svg>
        </Axes>
      </figure>
      {used.length > 0 && (
        <table className="list numbers">
          <thead>
            <tr>
              {COLUMNS.map((name) => (
                <th key={name}>{name}</th>
              ))}
            </tr>
          </thead>
          <tbody>
            {used.reverse().map((day) => (
              <tr key={day.date}>
                <td data-label={COLUMNS[0]}>{dayOf(day.date)}</td>
                <td data-label={COLUMNS[1]}>{day.cpu_hours.toFixed(2)}</td>
                <td data-label={COLUMNS[2]}>{day.ram_gib_hours.toFixed(2)}</td>
                <td data-label={COLUMNS[3]}>{day.storage_gib_hours.toFixed(2)}</td>
                <td data-label={COLUMNS[4]}>{day.egress_gib.toFixed(2)}</td>
                <td data-label={COLUMNS[5]}>{dollars(day.cost_dollars)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </section>
  );
}

/** The next of 1, 2, 5, 10, 20, … and their like below 1. */
function roundAbove(amount: number): number {
  if (amount <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(amount));
  return power * ([1, 2, 5].find((step) => step * power >= amount) ?? 10);
}

const edge = (amount: number): string => `$${Number(amount.toPrecision(2))}`;

/** The server's days are UTC's. */
const dayOf = (date: string): string =>
  new Date(date).toLocaleDateString([], { day: 'numeric', month: 'short', year: 'numeric', timeZone: 'UTC' });

/** Cents, and what is less than one as it is. */
const dollars = (amount: number): string =>
  amount !== 0 && Math.abs(amount) < 0.01 ? `$${amount.toFixed(4)}` : `$${amount.toFixed(2)}`;
