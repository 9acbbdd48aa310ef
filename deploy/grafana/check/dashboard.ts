// The dashboards' types: those of Grafana's Foundation SDK, with what it leaves open (`any`) closed, and only the
// panels that we use. .ci/dashboards checks each dashboard's JSON against `Dashboard`.

import type * as bargauge from "@grafana/grafana-foundation-sdk/bargauge";
import type * as sdk from "@grafana/grafana-foundation-sdk/dashboard";
import type * as gauge from "@grafana/grafana-foundation-sdk/gauge";
import type * as heatmap from "@grafana/grafana-foundation-sdk/heatmap";
import type * as prometheus from "@grafana/grafana-foundation-sdk/prometheus";
import type * as stat from "@grafana/grafana-foundation-sdk/stat";
import type * as table from "@grafana/grafana-foundation-sdk/table";
import type * as text from "@grafana/grafana-foundation-sdk/text";
import type * as timeseries from "@grafana/grafana-foundation-sdk/timeseries";
import type * as units from "@grafana/grafana-foundation-sdk/units";

type IsAny<T> = 0 extends 1 & T ? true : false;

/** As JSON has it: enums as their values, no methods. */
type Json<T> =
    IsAny<T> extends true
        ? T
        : T extends string
          ? `${T}`
          : T extends number
            ? `${T}` extends `${infer N extends number}`
                ? N
                : T
            : T extends (infer Item)[]
              ? Json<Item>[]
              : T extends object
                ? { [K in keyof T as T[K] extends (...args: never) => unknown ? never : K]: Json<T[K]> }
                : T;

type Datasource = { type: "prometheus"; uid: "${datasource}" };
type Unit = (typeof units)[keyof typeof units];

type Query = Omit<Json<prometheus.Dataquery>, "datasource" | "refId" | "legendFormat"> & {
    datasource: Datasource;
    refId: string;
    legendFormat: string;
};

type DataLink = { title: string; url: string; targetBlank?: boolean };

type Defaults<Custom> = Omit<Json<sdk.FieldConfig>, "custom" | "unit" | "links" | "color" | "thresholds"> & {
    unit: Unit;
    links?: DataLink[];
    color?: Json<sdk.FieldColor>;
    thresholds?: Json<sdk.ThresholdsConfig>;
    custom?: Custom;
};

/** A property of `defaults`, or one of `custom` as `custom.name`. */
type Property<Custom> =
    | {
          [K in Exclude<keyof Defaults<Custom>, "custom">]-?: { id: K; value: NonNullable<Defaults<Custom>[K]> };
      }[Exclude<keyof Defaults<Custom>, "custom">]
    | { [K in keyof Custom & string]-?: { id: `custom.${K}`; value: NonNullable<Custom[K]> } }[keyof Custom & string];

type FieldConfig<Custom> = {
    defaults: Defaults<Custom>;
    overrides: {
        matcher: { id: "byName" | "byRegexp" | "byFrameRefID"; options: string };
        properties: Property<Custom>[];
    }[];
};

type Transformation =
    | { id: "merge"; options: Record<string, never> }
    | {
          id: "organize";
          options: {
              excludeByName: Record<string, boolean>;
              indexByName: Record<string, number>;
              renameByName: Record<string, string>;
          };
      };

type Base = Omit<
    Json<sdk.Panel>,
    | "type"
    | "id"
    | "title"
    | "description"
    | "gridPos"
    | "datasource"
    | "targets"
    | "options"
    | "fieldConfig"
    | "transformations"
> & {
    id: number;
    title: string;
    description: string;
    gridPos: { h: number; w: number; x: number; y: number };
};

type Panel<Type extends string, Options, Custom> = Base & {
    type: Type;
    datasource: Datasource;
    targets: Query[];
    fieldConfig: FieldConfig<Custom>;
    transformations?: Transformation[];
    options: Json<Options>;
};

type None = Record<string, never>;

type AnyPanel =
    | Panel<"timeseries", timeseries.Options, Json<timeseries.FieldConfig>>
    | Panel<"stat", stat.Options, None>
    | Panel<"gauge", gauge.Options, None>
    | Panel<"bargauge", bargauge.Options, None>
    | Panel<"table", table.Options, Json<table.FieldConfig>>
    | Panel<"heatmap", heatmap.Options, Json<heatmap.FieldConfig>>
    | (Base & { type: "text"; options: Json<text.Options> })
    | (Omit<Json<sdk.RowPanel>, "title" | "gridPos" | "panels"> & {
          title: string;
          gridPos: { h: 1; w: 24; x: 0; y: number };
          panels: [];
      });

type Variable =
    | (Omit<Json<sdk.VariableModel>, "type" | "datasource" | "query"> & { type: "datasource"; query: "prometheus" })
    | (Omit<Json<sdk.VariableModel>, "type" | "datasource" | "query"> & {
          type: "query";
          datasource: Datasource;
          definition: string;
          /** 1 is `label_values`. */
          query: { qryType: 1; query: string; refId: string };
      });

type Annotation = Omit<Json<sdk.AnnotationQuery>, "datasource" | "target"> & {
    datasource: Datasource | { type: "grafana"; uid: "-- Grafana --" };
};

export type Dashboard = Omit<
    Json<sdk.Dashboard>,
    "id" | "uid" | "title" | "description" | "panels" | "templating" | "annotations" | "links" | "snapshot" | "gnetId"
> & {
    uid: string;
    title: string;
    description: string;
    panels: AnyPanel[];
    templating: { list: Variable[] };
    annotations: { list: Annotation[] };
    links: Json<sdk.DashboardLink>[];
};
