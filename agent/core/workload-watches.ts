/** What the data plane is asked to watch for the EIDs attached here: interfaces and whether they are up, and workloads. */
import type { DataplaneTable } from './dataplane-table.ts';
import type { Registrar } from './registrar.ts';

export class WorkloadWatches {
  private readonly registrar: Registrar;
  private readonly table: DataplaneTable;
  private readonly interfaces = new Map<string, boolean>();

  constructor(registrar: Registrar, table: DataplaneTable) {
    this.registrar = registrar;
    this.table = table;
  }

  isUp(name: string): boolean {
    return this.interfaces.get(name) === true;
  }

  /** The data plane has said what it is like. */
  isKnown(name: string): boolean {
    return this.interfaces.has(name);
  }

  handleInterface(name: string, up: boolean): void {
    this.interfaces.set(name, up);
  }

  /** What is attached, or what is waited for, has changed. */
  update(): void {
    const { registrar, table } = this;
    const wanted = registrar.interfaces();
    table.watchWorkloads(
      registrar.waitingForWorkload().flatMap(({ eid, interface: via }) => {
        return eid.kind === 'prefix' && via !== null ? [{ prefix: eid.prefix, interface: via }] : [];
      }),
    );
    for (const name of wanted) table.watch(name);
    for (const name of table.watched) {
      if (wanted.has(name)) continue;
      table.unwatch(name);
      this.interfaces.delete(name);
    }
  }
}
