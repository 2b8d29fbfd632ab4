// Who comes with the address of a part that has left this page is led to where it is now (tools/moved.py).
const goOn = () => {
  const mark = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const link = mark?.closest(".moved li")?.querySelector("a");
  if (link) location.replace(new URL(`#${mark.id}`, link.href));
};
addEventListener("hashchange", goOn);
goOn();
