// Draws the panels of `data`, which draw-dashboards wrote, about as Grafana would. Only what our dashboards use.
"use strict";

const NAMED = {
    green: "#56a64b",
    red: "#e02f44",
    orange: "#ff9830",
    yellow: "#e0b400",
    blue: "#3274d9",
    purple: "#a352cc",
    text: "#24292e",
    transparent: "transparent",
};
const PALETTE = [
    "#56a64b",
    "#f2cc0c",
    "#3274d9",
    "#ff780a",
    "#e02f44",
    "#8f3bb8",
    "#5ab6c9",
    "#705da0",
    "#37872d",
    "#b7791f",
    "#8ab8ff",
    "#c15c17",
    "#890f02",
    "#0a437c",
];
const PER_SECOND = { ops: "ops/s", eps: "ev/s", mps: "msg/s", reqps: "req/s", wps: "wr/s", cps: "c/s" };

const color = (name) => NAMED[name] ?? name;
const rounded = (value, digits) => String(Number(value.toFixed(digits)));
const digitsOf = (value) => (Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2);

function scaled(value, steps, decimals) {
    let [size, unit] = steps[0];
    for (const [least, name] of steps) if (Math.abs(value) >= least) [size, unit] = [least, name];
    const shown = value / size;
    return rounded(shown, decimals ?? digitsOf(shown)) + unit;
}

const SECONDS = [
    [1e-6, " µs"],
    [1e-3, " ms"],
    [1, " s"],
    [60, " min"],
    [3600, " h"],
    [86400, " d"],
];
const BYTES = [
    [1, " B"],
    [1024, " KiB"],
    [1024 ** 2, " MiB"],
    [1024 ** 3, " GiB"],
];
const SHORT = [
    [1, ""],
    [1e3, " K"],
    [1e6, " Mil"],
];

function text(value, unit, decimals) {
    if (value === null || value === undefined || Number.isNaN(value)) return "";
    if (typeof value === "string") return value;
    if (unit === "s") return value === 0 ? "0 s" : scaled(value, SECONDS, decimals);
    if (unit === "bytes") return scaled(value, BYTES, decimals);
    if (unit === "percentunit") return rounded(value * 100, decimals ?? digitsOf(value * 100)) + "%";
    const number =
        Math.abs(value) < 1
            ? rounded(value, decimals ?? 3)
            : scaled(value, SHORT, Math.abs(value) < 1000 ? decimals : undefined);
    return PER_SECOND[unit] ? `${number} ${PER_SECOND[unit]}` : number;
}

function element(parent, tag, className, content) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (content !== undefined) made.textContent = content;
    parent.append(made);
    return made;
}

const defaultsOf = (panel) => panel.fieldConfig.defaults;

function overridden(panel, name) {
    const found = panel.fieldConfig.overrides.filter((one) => one.matcher.options === name);
    return Object.fromEntries(found.flatMap((one) => one.properties.map(({ id, value }) => [id, value])));
}

function seriesColor(panel, one, index) {
    const fixed = overridden(panel, one.name).color?.fixedColor;
    return fixed ? color(fixed) : PALETTE[index % PALETTE.length];
}

function thresholdColor(panel, value) {
    let found = "transparent";
    for (const step of defaultsOf(panel).thresholds?.steps ?? [])
        if (step.value === null || value >= step.value) found = step.color;
    return color(found);
}

function none(body, panel) {
    element(body, "div", "none", defaultsOf(panel).noValue ?? "No data");
}

function stat(body, panel) {
    const { unit, decimals, mappings = [] } = defaultsOf(panel);
    const named = panel.options.textMode === "value_and_name";
    const stats = element(body, "div", "stats" + (named && panel.series.length > 1 ? " wide" : ""));
    for (const one of panel.series) {
        const mapped = mappings.map((mapping) => mapping.options[String(one.last)]).find(Boolean);
        const shade = mapped?.color ? color(mapped.color) : thresholdColor(panel, one.last);
        const box = element(stats, "div", "stat");
        if (panel.options.graphMode === "area") spark(box, one.values);
        if (named) element(box, "span", "name", one.name);
        const shown = mapped?.text ?? text(one.last, unit, decimals);
        const value = element(box, "span", "value", shown);
        const space = Math.min(body.clientWidth, body.clientHeight * 3) / panel.series.length;
        value.style.fontSize = `${Math.max(13, Math.min(34, space / (shown.length * 0.62), body.clientHeight / panel.series.length / 1.6))}px`;
        if (panel.options.colorMode === "background") Object.assign(box.style, { background: shade, color: "#fff" });
        else value.style.color = shade;
    }
}

function spark(box, values) {
    const most = Math.max(...values.map((value) => value ?? 0), 1e-9);
    const points = values.map((value, i) => `${(i / (values.length - 1)) * 100},${40 - ((value ?? 0) / most) * 38}`);
    box.insertAdjacentHTML(
        "beforeend",
        `<svg viewBox="0 0 100 40" preserveAspectRatio="none"><polygon fill="#fff" points="0,40 ${points.join(" ")} 100,40"/></svg>`,
    );
}

function bars(body, panel) {
    const { unit, decimals, max } = defaultsOf(panel);
    const most = max ?? Math.max(...panel.series.map((one) => one.last));
    const grid = element(body, "div", "bars");
    for (const one of panel.series) {
        element(grid, "span", "", one.name);
        const fill = element(element(grid, "div", "track"), "div", "fill");
        Object.assign(fill.style, {
            width: `${Math.min(100, (one.last / most) * 100)}%`,
            background: thresholdColor(panel, one.last),
        });
        element(grid, "span", "", text(one.last, unit, decimals));
    }
}

function table(body, panel) {
    const drawn = element(body, "table", "rows");
    const columns = Object.keys(panel.rows[0]);
    const head = element(drawn, "tr");
    for (const name of columns) element(head, "th", "", name);
    for (const row of panel.rows) {
        const line = element(drawn, "tr");
        for (const name of columns) {
            const own = overridden(panel, name);
            element(
                line,
                "td",
                "",
                text(row[name], own.unit ?? defaultsOf(panel).unit, own.decimals ?? defaultsOf(panel).decimals),
            );
        }
    }
}

const DECIMAL = [1e-6, 1e-5, 1e-4, 0.001, 0.01, 0.1, 1].flatMap((size) => [size, 2 * size, 5 * size]);
const WHOLE = [1, 10, 100, 1e3, 1e4, 1e5, 1e6].flatMap((size) => [size, 2 * size, 5 * size]);
const TIMES = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400, 172800, 604800];
const POWERS = Array.from({ length: 40 }, (_, i) => 2 ** i);

function increments(unit, decimals) {
    if (unit === "s") return [...DECIMAL.filter((size) => size < 1), ...TIMES];
    if (unit === "bytes") return POWERS;
    return decimals === 0 ? WHOLE : [...DECIMAL.filter((size) => size < 1), ...WHOLE];
}

function axes(unit, decimals) {
    const font = '11px "Liberation Sans", Arial, sans-serif';
    const grid = { stroke: "#eceef0", width: 1 };
    const two = (value) => String(value).padStart(2, "0");
    const clock = (seconds) => {
        const at = new Date(seconds * 1000);
        return `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}`;
    };
    return [
        {
            font,
            grid,
            ticks: grid,
            stroke: "#5c6370",
            size: 24,
            space: 60,
            incrs: [60, 120, 300, 600, 1800, 3600],
            values: (_, all) => all.map(clock),
        },
        {
            font,
            grid,
            ticks: { show: false },
            stroke: "#5c6370",
            space: 26,
            gap: 2,
            incrs: increments(unit, decimals),
            size: (_, values) => 14 + 6.2 * Math.max(3, ...(values ?? []).map((value) => value.length)),
            values: (_, all) => all.map((value) => text(value, unit, unit === "short" ? undefined : decimals)),
        },
    ];
}

function markAndThresholds(panel) {
    return (plot) => {
        const { left, top, width, height } = plot.bbox;
        const context = plot.ctx;
        const line = (x0, y0, x1, y1, stroke) => {
            context.save();
            Object.assign(context, { strokeStyle: stroke, lineWidth: 1 });
            context.setLineDash([4, 3]);
            context.beginPath();
            context.moveTo(x0, y0);
            context.lineTo(x1, y1);
            context.stroke();
            context.restore();
        };
        for (const { at } of data.marks) {
            const x = plot.valToPos(at, "x", true);
            if (x >= left && x <= left + width) line(x, top, x, top + height, NAMED.purple);
        }
        if (defaultsOf(panel).custom?.thresholdsStyle) {
            for (const step of defaultsOf(panel).thresholds.steps) {
                const y = step.value === null ? -1 : plot.valToPos(step.value, "y", true);
                if (y >= top && y <= top + height) line(left, y, left + width, y, color(step.color));
            }
        }
    };
}

function legend(body, panel) {
    const { unit, decimals } = defaultsOf(panel);
    if (panel.options.legend.placement === "right") {
        const side = element(body, "table", "side");
        side.innerHTML = "<tr><th></th><th>Last</th><th>Max</th></tr>";
        const most = (one) => Math.max(...one.values.filter((value) => value !== null), -Infinity);
        const lines = panel.series.map((one, index) => ({ one, index })).sort((a, b) => most(b.one) - most(a.one));
        for (const { one, index } of lines) {
            const line = element(side, "tr");
            const name = element(line, "td");
            element(name, "i").style.background = seriesColor(panel, one, index);
            name.append(one.name);
            element(line, "td", "", text(one.last, unit, decimals));
            element(line, "td", "", text(most(one), unit, decimals));
        }
        return [side.offsetWidth + 10, 0];
    }
    const list = element(body, "div", "legend");
    panel.series.forEach((one, index) => {
        const item = element(list, "span");
        element(item, "i").style.background = seriesColor(panel, one, index);
        item.append(one.name);
    });
    list.style.maxHeight = "62px";
    return [0, list.offsetHeight + 6];
}

function timeseries(body, panel) {
    const { unit, decimals, min, max, custom } = defaultsOf(panel);
    const [side, below] = legend(body, panel);
    const stacked = custom.stacking?.mode === "normal";
    const bar = custom.drawStyle === "bars";
    const values = panel.series.map((one) => [...one.values]);
    if (stacked) {
        for (let i = 1; i < values.length; i++)
            values[i] = values[i].map((value, at) => (value ?? 0) + (values[i - 1][at] ?? 0));
        panel.times.forEach((_, at) => {
            if (panel.series.every((one) => one.values[at] === null)) for (const line of values) line[at] = null;
        });
    }
    let lines = panel.series.map((one, index) => {
        const stroke = seriesColor(panel, one, index);
        const fill =
            stroke +
            Math.round((custom.fillOpacity / 100) * 255)
                .toString(16)
                .padStart(2, "0");
        const paths = bar
            ? uPlot.paths.bars({ size: [0.8, 40] })
            : custom.lineInterpolation === "stepAfter"
              ? uPlot.paths.stepped({ align: 1 })
              : undefined;
        return {
            stroke,
            fill: bar ? stroke : fill,
            width: bar ? 0 : 1.3,
            points: { show: false },
            paths,
            values: values[index],
        };
    });
    // Stacked bars: the highest lie behind.
    if (bar) lines = lines.reverse();
    const most = Math.max(...values.flat().map((value) => value ?? 0), 0) || 1;
    new uPlot(
        {
            width: body.clientWidth - side,
            height: body.clientHeight - below,
            legend: { show: false },
            cursor: { show: false },
            padding: [6, 20, 0, 0],
            scales: {
                x: { min: data.from, max: data.to },
                y: {
                    range: (_, low, high) => [min ?? low ?? 0, max ?? ((high ?? 0) > (min ?? 0) ? high * 1.05 : most)],
                },
            },
            axes: axes(unit, decimals),
            series: [{}, ...lines.map(({ values: _, ...line }) => line)],
            bands: stacked && !bar ? lines.slice(1).map((_, i) => ({ series: [i + 2, i + 1] })) : [],
            hooks: { draw: [markAndThresholds(panel)] },
        },
        [panel.times, ...lines.map((line) => line.values)],
        body,
    );
}

function heatmap(body, panel) {
    const edges = panel.series
        .map((one) => ({ ...one, le: one.name === "+Inf" ? Infinity : Number(one.name) }))
        .sort((a, b) => a.le - b.le);
    const cells = edges.map((one, i) =>
        one.values.map((value, at) => Math.max(0, (value ?? 0) - (i ? (edges[i - 1].values[at] ?? 0) : 0))),
    );
    const most = Math.max(...cells.flat(), 1e-9);
    const draw = (plot) => {
        const width = plot.valToPos(panel.times[1], "x", true) - plot.valToPos(panel.times[0], "x", true);
        const { bbox, ctx } = plot;
        ctx.save();
        ctx.beginPath();
        ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
        ctx.clip();
        cells.forEach((line, i) => {
            const [y0, y1] = [plot.valToPos(i + 1, "y", true), plot.valToPos(i, "y", true)];
            line.forEach((value, at) => {
                if (value < 1e-9) return;
                const share = Math.sqrt(value / most);
                ctx.fillStyle = `hsl(${30 - 22 * share} 95% ${92 - 62 * share}%)`;
                ctx.fillRect(plot.valToPos(panel.times[at], "x", true) - width, y0, width - 1, y1 - y0 - 1);
            });
        });
        ctx.restore();
    };
    const [x, y] = axes("s");
    Object.assign(y, {
        splits: () => edges.map((_, i) => i + 1),
        values: (_, all) =>
            all.map((i) =>
                edges.length < 12 || i % 2 === 0
                    ? edges[i - 1].le === Infinity
                        ? "more"
                        : text(edges[i - 1].le, "s")
                    : "",
            ),
        space: 8,
        size: 58,
    });
    new uPlot(
        {
            width: body.clientWidth,
            height: body.clientHeight - 4,
            legend: { show: false },
            cursor: { show: false },
            padding: [6, 20, 0, 0],
            scales: { x: { min: data.from, max: data.to }, y: { range: () => [0, edges.length] } },
            axes: [x, y],
            series: [{}, { show: true, stroke: "transparent", points: { show: false } }],
            hooks: { drawClear: [draw] },
        },
        [panel.times, panel.times.map(() => 0)],
        body,
    );
}

function markdown(body, panel) {
    const drawn = element(body, "div", "text");
    panel.options.content.split("`").forEach((part, i) => element(drawn, i % 2 ? "code" : "span", "", part));
}

const DRAW = { stat, gauge: bars, bargauge: bars, table, timeseries, heatmap };

function place(drawn, { x, y, w, h }) {
    const { width, header, cell, gap } = data.layout;
    const column = (width - gap) / 24;
    Object.assign(drawn.style, {
        left: `${gap + x * column}px`,
        top: `${header + y * (cell + gap)}px`,
        width: `${w * column - gap}px`,
        height: `${h * (cell + gap) - gap}px`,
    });
}

document.body.style.cssText += `width: ${data.layout.width}px; height: ${data.layout.height}px`;
element(document.body, "h1", "", data.title);
element(document.body, "div", "caption", data.caption);
for (const panel of data.panels) {
    const drawn = element(
        document.body,
        "div",
        panel.type === "row" ? "row" : "panel",
        panel.type === "row" ? panel.title : undefined,
    );
    place(drawn, panel.gridPos);
    if (panel.type === "row") continue;
    element(drawn, "div", "title", panel.title);
    const body = element(drawn, "div", "body");
    if (panel.type === "text") markdown(body, panel);
    else if (panel.empty) none(body, panel);
    else DRAW[panel.type](body, panel);
}
